"""No request waits for ever: whatever the schedule, a bounded number of others goes before it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents.engines.engine import Request
from helium_agents.graph.sampling import Sampling
from helium_agents.optimizer.policy import AtMost
from helium_agents.optimizer.schedule import EverythingOpen, Gated, Schedule
from helium_agents.runtime.dispatch import request_queue
from helium_agents.runtime.dispatch.request_queue import RequestQueue


class Unfair:
    """Always the newest."""

    def keeps_prefixes(self, queue: RequestQueue) -> bool:
        return False

    def choose(self, queue: RequestQueue) -> Request:
        return next(reversed(queue.ready))

    def look_again_s(self, queue: RequestQueue) -> None:
        return None


def queue_of_nobody() -> RequestQueue:
    return RequestQueue(None, set())  # type: ignore[arg-type]


def request(number: int, item: int | None = None) -> Request:
    return Request(str(number), (), [1], Sampling(1), item=item)


@given(st.integers(0, 2**32), st.sampled_from(["unfair", "few", "all"]), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_every_request_is_sent_within_a_bound(seed: int, name: str, num_open: int) -> None:
    """Items that never end ask again and again, while others wait."""
    rng = random.Random(seed)
    schedules: dict[str, Schedule] = {
        "unfair": Unfair(),  # type: ignore[dict-item]
        "few": Gated(AtMost(num_open)),
        "all": EverythingOpen(),
    }
    schedule, queue = schedules[name], queue_of_nobody()
    ageing_every, numbers = 8, iter(range(10_000))
    came: dict[Request, tuple[int, int]] = {}
    num_sent = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_queue, "EVERY", ageing_every)
        for _ in range(300):
            for _ in range(rng.choice([0, 1, 1, 2])):
                new = request(next(numbers), rng.choice([None, *range(8)]))
                came[new] = num_sent, len(queue.ready)
                queue.add(new)
            if not queue.ready:
                continue
            chosen = schedule.choose(queue)
            if chosen is None:  # nothing has ended: what is stalled is opened
                queue.is_stalled = True
                chosen = schedule.choose(queue)
            assert isinstance(chosen, Request)
            chosen = queue.overdue() or chosen
            if chosen.item is not None and chosen.item not in queue.open_items:
                queue.open_items.add(chosen.item)
                queue.opened(chosen.item)
            queue.send(chosen, 0)
            num_sent += 1
            sent_when, num_before = came.pop(chosen)
            assert num_sent - sent_when <= ageing_every * (num_before + 1) + 1


def test_it_is_seldom() -> None:
    queue, waits = queue_of_nobody(), request(0)
    queue.add(waits)
    for number in range(1, 600):
        queue.add(request(number))
        overdue = queue.overdue()
        if overdue is not None:
            assert (overdue, number) == (waits, request_queue.EVERY)
            return
        queue.send(next(reversed(queue.ready)), 0)
    pytest.fail("it waited for ever")
