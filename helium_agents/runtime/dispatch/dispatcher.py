"""The dispatcher: where the requests that are ready stand side by side, until each has its turn.

A request that waits here holds no KV cache and nobody's turn. It goes when the token budget has
room for it and the schedule picks it.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import chain
from typing import TypeVar, TypeVarTuple

from helium_agents.engines.engine import Completion, Request
from helium_agents.errors import TokenBudgetExceeded
from helium_agents.graph.node import Node
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.policy import ALL_OPEN
from helium_agents.optimizer.schedule import Asked, Schedule, has_slot
from helium_agents.optimizer.simulate import SimulatedRoom
from helium_agents.runtime.dispatch.idle_requests import IdleRequests
from helium_agents.runtime.dispatch.item_uses import ItemUses
from helium_agents.runtime.dispatch.request_queue import RequestQueue
from helium_agents.runtime.dispatch.settling import Settling
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.fleet.fleet import Fleet
from helium_agents.runtime.learning.learners import Mapped
from helium_agents.runtime.planner import Planner
from helium_agents.runtime.token_budget import TokenBudget

Args = TypeVarTuple("Args")
Found = TypeVar("Found")

Early = Callable[[Request], Awaitable[Completion | None]]

_STALLED_S = 0.05
"""Where an engine has had nothing for so long, whoever waits for the next one waits in vain."""


class Dispatcher:
    """Sends requests to their engines, each when its turn has come.

    Args:
        engines: The session's engines.
        schedule: Chooses which goes next.
        planner: Tells an `Adaptive` schedule which rows to have open, or `None`.
        limit_tokens: Most prompt and output tokens that may be computed; `None` for no limit.
    """

    def __init__(
        self,
        engines: EnginePool,
        schedule: Schedule,
        limit_tokens: int | None = None,
        planner: Planner | None = None,
    ) -> None:
        self._engines = engines
        self._schedule = schedule
        self._planner = planner
        self._budget = None if limit_tokens is None else TokenBudget(limit_tokens)
        self._num_sent = 0
        self._items: set[int] = set()  # that have not ended
        self._open_items: set[int] = set()  # for which something has been sent, too
        self._queues: dict[str | None, RequestQueue] = {}  # by name; an engine may have several
        self._idle: dict[RequestQueue, IdleRequests] = {}  # where there were any

    def close(self) -> None:
        """The session ends: no timer of it is left in the event loop."""
        for queue in self._queues.values():
            for timer in (queue.alarm, queue.look_again, queue.settling):
                if timer is not None:
                    timer.cancel()

    async def complete(self, request: Request, early: Early | None = None) -> Completion:
        """Compute a request when its turn has come.

        Args:
            request: The request.
            early: Gives the completion of an equal one that was made before anybody asked for it,
                or `None` where nothing has come of it.

        Raises:
            TokenBudgetExceeded: It does not fit in what is left of the budget.
            Exception: What its engine raises; see `Fleet.complete`.
        """
        queue = self._queues.get(request.model) or self._add_queue(request.model)
        used_tokens, completion, sent_s = 0, None, None
        # what tokens an image has is known to the engine alone
        is_learned = (
            self._planner is not None and request.item is not None and not request.has_images
        )
        if is_learned:
            self._plan(Planner.ask, request, asyncio.get_running_loop().time())
        try:
            if early is not None:
                sent_s = asyncio.get_running_loop().time()
                completion = await early(request)
            if completion is None:
                self._send(queue, request)
                if request in queue.ready:
                    await queue.turn(request)
                sent_s = asyncio.get_running_loop().time()
                completion = await queue.fleet.complete(request)
                queue.note_prefill(request, completion, sent_s)
            used_tokens = completion.prompt_tokens + completion.output_tokens
        finally:
            now_s = asyncio.get_running_loop().time()
            if is_learned:
                self._plan(Planner.answer, request, completion, sent_s, now_s)
            if request in queue.uses.began_for:
                queue.uses.end(request, completion, now_s)
            reserved_tokens = queue.end(request)
            if self._budget is not None:
                self._budget.settle(reserved_tokens, used_tokens)
            for each in self._queues.values():
                if each.ready:
                    self._send(each)
            for idle in self._idle.values():
                idle.send()
        return completion

    def idle_requests(self, model: str | None) -> IdleRequests:
        """Takes requests of a model that nobody has asked for yet."""
        queue = self._queues.get(model) or self._add_queue(model)
        if queue not in self._idle:
            self._idle[queue] = IdleRequests(queue)
        return self._idle[queue]

    def num_demanded(self, model: str | None) -> int:
        """How many requests of a model were asked for and are not answered."""
        queue = self._queues.get(model)
        return 0 if queue is None else len(queue.ready) + len(queue.running)

    def item_began(self, item: int, mapped: Mapped) -> None:
        """An item of a top-level map begins: requests may come that are wanted for it."""
        self._items.add(item)
        self._plan(Planner.begin, item, mapped)

    def declare(self, node: Node) -> None:
        """A call for an item of a map was made."""
        self._plan(Planner.declare, node)

    def remembered(self, item: int, is_of_this_run: bool) -> None:
        """A call for an item of a map was answered without a request."""
        self._plan(Planner.remembered, item, is_of_this_run)

    def item_ended(self, item: int) -> None:
        """An item of a top-level map has ended, though it may have left requests behind."""
        self._items.discard(item)
        for queue in dict.fromkeys(self._queues.values()):
            queue.uses.forget(item)
        self._plan(Planner.end, item)
        if item in self._open_items:
            self._open_items.remove(item)
            self._send_all()

    @property
    def states(self) -> list[str]:
        """What each engine is doing, in words."""
        waiting = sum(len(queue.ready) for queue in dict.fromkeys(self._queues.values()))
        states = self._engines.states
        if self._planner is not None and self._planner.choice.compared:
            states.append(f"schedule: {self._planner.choice.explain()}")
        return [*states, f"requests that wait for their turn: {waiting}"] if waiting else states

    @property
    def _is_busy(self) -> bool:
        return any(queue.running for queue in self._queues.values())

    def _add_queue(self, model: str | None) -> RequestQueue:
        fleet = self._engines[model]
        for queue in self._queues.values():
            if queue.fleet is fleet:
                break
        else:
            queue = RequestQueue(fleet, self._open_items)
        self._queues[model] = queue
        return queue

    def _uses_of_others(self, queue: RequestQueue) -> list[ItemUses]:
        return [each.uses for each in self._queues.values() if each is not queue]

    def _send_all(self) -> None:
        for queue in self._queues.values():
            if queue.ready:
                self._send(queue)

    def _send(self, queue: RequestQueue, new: Request | None = None) -> None:
        """Let all go whose turn it is, among them one that has just come."""
        room = queue.fleet.capacity
        if queue.room is None and room is not None:
            self._plan(Planner.engine_started)
        queue.room = room
        queue.now_s = asyncio.get_running_loop().time()
        if new is not None:
            queue.add(new)
            if new.item is not None:
                others = () if len(self._queues) == 1 else self._uses_of_others(queue)
                queue.uses.come(new, new.item, queue.now_s, others)
        if self._items and self._planner is not None and self._planner.has_news:
            self._settle(queue, self._planner)
        while queue.ready:
            chosen = self._next(queue)
            if chosen is None:
                return
            request = queue.overdue() or chosen
            assert isinstance(request, Request)
            num_tokens = 0
            if self._budget is not None:
                try:
                    num_tokens = self._budget.reserve(request)
                except TokenBudgetExceeded as error:
                    if self._budget.reserved_tokens:  # some of it will be given back
                        return
                    queue.refuse(request, error)
                    continue
            if request.item in self._items:
                self._begin(queue, request, request.item)
            self._num_sent += 1
            queue.send(request, num_tokens)
            if queue in self._idle:
                self._idle[queue].make_room()

    def _next(self, queue: RequestQueue) -> Asked | None:
        """The request whose turn it is; `None`: none, for now."""
        if queue.settling is not None and self._is_settling(queue, queue.settling):
            # no further row is opened before it is known which
            return next(iter(queue.ready_of_open), None) if has_slot(queue) else None
        chosen = self._schedule.choose(queue)
        if chosen is None:
            self._set_alarm(queue)
        return chosen

    def _is_settling(self, queue: RequestQueue, settling: Settling) -> bool:
        """Whether rows wait for the planner, while the engine has enough to do.

        Agents that are parked wait by what they hold, whatever the planner is about to say.
        """
        return not self._schedule.keeps_prefixes(queue) and queue.is_busy_for(settling.ahead_s)

    def _begin(self, queue: RequestQueue, request: Request, item: int) -> None:
        """Take note that a request of an item is sent."""
        if item not in self._open_items:
            self._open_items.add(item)
            for each in self._queues.values():
                each.opened(item)
        queue.uses.begin(request, queue.now_s)
        self._set_hints(queue, request)

    def _settle(self, queue: RequestQueue, planner: Planner) -> None:
        """Have the planner look at the rows as soon as no more of them come."""
        if queue.settling is not None or not isinstance(self._schedule, Adaptive):
            return
        if queue.room is None or queue.fleet.cost is None:
            return

        def end() -> None:
            queue.settling = None
            if queue.ready or queue.running:  # else all of it is over
                self._choose_policy(queue)
                self._send_all()

        def num_prompts() -> int:
            return len(queue.ready) + len(queue.running)

        queue.settling = Settling(planner, num_prompts, partial(self._send, queue), end)

    def _choose_policy(self, queue: RequestQueue) -> None:
        """Let the planner look at what is known of the rows."""
        schedule = self._schedule
        if not isinstance(schedule, Adaptive):
            return
        rooms = [_room_of(fleet) for fleet in self._engines.fleets]

        def choose(planner: Planner) -> None:
            schedule.follow(planner.choose(rooms, chain(queue.running, queue.ready)).policy)

        self._plan(choose)

    def _plan(self, step: Callable[[Planner, *Args], Found], *args: *Args) -> Found | None:
        """Take a step of the planner, if there is one: no answer depends on it."""
        if self._planner is None:
            return None
        try:
            return step(self._planner, *args)
        except Exception as error:
            self._planner = None
            if isinstance(self._schedule, Adaptive):
                self._schedule.follow(ALL_OPEN)
            message = f"the planner failed, so all rows stay open: {error!r}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            return None

    def _set_hints(self, queue: RequestQueue, request: Request) -> None:
        """Tell the engine what of its cache will be of use."""
        used_tokens = self._plan(Planner.send, request)
        if not queue.fleet.takes_hints or request.has_images:
            return
        # of several engines, one would not hear what another is told of an ended session
        is_told = self._schedule.keeps_prefixes(queue) and queue.num_engines == 1
        hints = queue.uses.hints(request) if is_told else {}
        if used_tokens is not None:
            hints["helium_used_tokens"] = used_tokens
        request.hints = hints or None

    def _set_alarm(self, queue: RequestQueue) -> None:
        """See to it that the schedule is asked again where nothing may happen before."""
        loop = asyncio.get_running_loop()
        if queue.alarm is None and not self._is_busy:
            queue.alarm = loop.call_later(_STALLED_S, self._end_stall, queue, self._num_sent)
        if queue.look_again is not None:
            queue.look_again.cancel()
            queue.look_again = None
        if (when_s := self._schedule.look_again_s(queue)) is not None:
            queue.look_again = loop.call_at(when_s, self._send, queue)

    def _end_stall(self, queue: RequestQueue, num_sent: int) -> None:
        queue.alarm = None
        queue.is_stalled = num_sent == self._num_sent and not self._is_busy
        self._send(queue)
        queue.is_stalled = False


def _room_of(fleet: Fleet) -> SimulatedRoom | None:
    """The engines of a model as they are simulated; `None` where that cannot be."""
    held, cost = fleet.capacity, fleet.cost
    if held is None or cost is None:
        return None
    return SimulatedRoom(
        held.kv_tokens // fleet.num_engines,
        held.max_requests // fleet.num_engines,
        cost,
        held.block_tokens,
        drops_unused=fleet.takes_hints,
        num_engines=fleet.num_engines,
    )
