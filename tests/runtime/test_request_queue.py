"""The queue of a model against a naive one: what is filed where, whatever happens in between."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helium_agents.engines.engine import Request
from helium_agents.graph.sampling import Sampling
from helium_agents.runtime.dispatch.request_queue import RequestQueue

items = st.none() | st.integers(0, 5)


class Queues(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue = RequestQueue(None, set())  # type: ignore[arg-type]
        self.waiting: list[Request] = []

    @rule(item=items)
    def add(self, item: int | None) -> None:
        request = Request("a", (), [1], Sampling(1), item=item)
        self.waiting.append(request)
        self.queue.add(request)

    @rule(index=st.integers(0, 20), item=items)
    def move(self, index: int, item: int | None) -> None:
        if self.waiting:
            request = self.waiting[index % len(self.waiting)]
            request.item = item
            request.on_moved()

    @rule(index=st.integers(0, 20))
    def send(self, index: int) -> None:
        if not self.waiting:
            return
        request = self.waiting.pop(index % len(self.waiting))
        if request.item is not None:
            self.queue.open_items.add(request.item)
            self.queue.opened(request.item)
        self.queue.send(request, 7)
        request.item = 3
        request.on_moved()
        assert self.queue.end(request) == 7

    @rule(index=st.integers(0, 20))
    def leave(self, index: int) -> None:
        if self.waiting:
            assert self.queue.end(self.waiting.pop(index % len(self.waiting))) == 0

    @invariant()
    def is_as_the_naive_one(self) -> None:
        queue, is_open = self.queue, self.queue.open_items
        assert list(queue.ready) == self.waiting
        others = [each for each in self.waiting if each.item is not None]
        others = [each for each in others if each.item not in is_open]
        assert set(queue.ready_of_open) == set(self.waiting) - set(others)
        first = queue.next_item
        if first is None:
            assert not others
        else:
            assert first.item == min(each.item or 0 for each in others)


TestQueues = Queues.TestCase
TestQueues.settings = settings(max_examples=60, deadline=None, stateful_step_count=40)
