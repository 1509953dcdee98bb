"""A flight: a computation in the making, and those who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from helium_agents.engines.engine import OnDelta, Request
from helium_agents.errors import RefMisuse
from helium_agents.graph.cycles import EndableWait
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node
from helium_agents.graph.outcome import Failure, Outcome
from helium_agents.graph.task_waits import Stuck
from helium_agents.graph.trace import Frame
from helium_agents.runtime.alarm import Alarm
from helium_agents.runtime.item import Item
from helium_agents.runtime.streaming import StreamBuffer
from helium_agents.telemetry.events import Source, Usage


class Waiter(EndableWait):
    """One who wants a flight's outcome.

    Args:
        flight: The flight, which may change while it is wanted.
        on_begun: Called once the computation proper begins.
        frame: Where the call is awaited; `None` for who is in no task.
    """

    __slots__ = ("flight", "on_begun")

    def __init__(
        self, flight: Flight, on_begun: Callable[[], None] | None, frame: Frame | None = None
    ) -> None:
        self.frame = frame
        self.task = None if frame is None else asyncio.current_task()
        self.flight = flight
        self.on_begun = on_begun

    @property
    def holder(self) -> Flight | None:
        """The flight that wants it, if it is one."""
        return None

    @property
    def awaited(self) -> Node:
        """The call that it waits for."""
        return self.flight.node

    @property
    def is_over(self) -> bool:
        """Whether it waits no longer."""
        return self not in self.flight.waiters

    def wake(self) -> None:
        """The flight has landed. Who started a call without awaiting it need not be woken."""


class Awaiter(Waiter):
    """A task that awaits a flight.

    Args:
        flight: The flight.
        landed: Done once it has landed.
        frame: Where the call is awaited.
        alarm: Begins when the computation proper does.
    """

    __slots__ = ("_landed",)

    def __init__(
        self, flight: Flight, landed: asyncio.Future[None], frame: Frame, alarm: Alarm | None
    ) -> None:
        self.flight = flight
        self.on_begun = None if alarm is None else alarm.begin
        self.frame = frame
        self.task = asyncio.current_task()
        self._landed = landed

    def wake(self) -> None:
        """The flight has landed."""
        if not self._landed.done():
            self._landed.set_result(None)

    def fail(self, error: RefMisuse) -> None:
        """End the wait."""
        if not self._landed.done():
            self._landed.set_exception(error)
            if self.flight.stream is not None:
                self.flight.stream.wake()


class Holder(Waiter):
    """A flight that needs another, as an input or to take its answer.

    Args:
        flight: The other.
        holder: The flight.
        wake: Called when the other has landed.
        on_begun: Called once the other's computation proper begins.
        end: Ends the flight with an error.
    """

    __slots__ = ("_end", "_holder", "_wake")

    def __init__(
        self,
        flight: Flight,
        holder: Flight,
        wake: Callable[[], None],
        on_begun: Callable[[], None] | None,
        end: Callable[[Flight, Outcome], None],
    ) -> None:
        super().__init__(flight, on_begun)
        self._holder = holder
        self._wake = wake
        self._end = end

    @property
    def holder(self) -> Flight:
        """The flight that wants it."""
        return self._holder

    @property
    def node(self) -> Node:
        """The call that needs it."""
        return self._holder.node

    def is_certain(self, stuck: Stuck) -> bool:
        """A flight does not go on without what it holds."""
        return True

    def wake(self) -> None:
        """The other has landed."""
        self._wake()

    def fail(self, error: RefMisuse) -> None:
        """End the flight."""
        self._end(self._holder, Failure(error))


class Flight:
    """A computation in the making. `Flights` tells how it lives.

    Args:
        node: The call that it was begun for.
        asked_s: When, by the event loop's clock.
        item: The first of the items of maps that it is wanted for; `None` if not all who want it
            are in one.

    Attributes:
        node: The call whose question is computed.
        nodes: The calls that it answers, and how each came to it; the first asks.
        waiters: Who wants it.
        holds: Its own interest in other flights.
        next_input: How many of the inputs are known to be there, in their order.
        has_begun: Whether the computation proper has begun: timeouts count from then.
        is_left: Whether nobody wants it any more.
        leader: The call whose answer it took, if it took one that was under way.
        doing: What it does or waits for, in words.
        request: What the dispatcher was given to find the answer.
        outcome: What it came to, before each call's own form is made of it.
        usage: When it did what, and how much.
        calls_below: Model calls that were made for the result of a pure operator.
    """

    __slots__ = (
        "calls_below", "doing", "has_begun", "has_plan", "holds", "is_left",
        "item", "keys", "leader", "next_input", "node", "nodes", "outcome", "request", "stream",
        "task", "usage", "waiters",
    )  # fmt: skip

    def __init__(self, node: Node, asked_s: float, item: Item | None) -> None:
        self.node = node
        self.nodes: list[tuple[Node, Source]] = [(node, "engine")]
        self.waiters: dict[Waiter, None] = {}
        self.holds: tuple[Waiter, ...] = ()
        self.keys: tuple[bytes, ...] = ()  # where the table of flights lists us
        self.task: asyncio.Task[None] | None = None
        self.outcome: Outcome | None = None
        self.has_plan = False
        self.has_begun = False
        self.is_left = False
        self.calls_below = 0
        self.leader: Node | None = None
        self.next_input = 0
        self.stream: StreamBuffer | None = None
        self.doing = "waits to be planned"
        self.usage = Usage(asked_s)
        self.item: Item | None = item
        self.request: Request | None = None
        node.flight = self

    @property
    def max_tokens(self) -> int:
        """Most tokens of its answer; 0 for an operator."""
        return self.node.call.sampling.max_tokens if isinstance(self.node, LlmNode) else 0

    def begin(self) -> None:
        """The computation proper begins now."""
        if not self.has_begun:
            self.has_begun = True
            for waiter in self.waiters:
                if waiter.on_begun is not None:
                    waiter.on_begun()

    def want_for(self, item: Item | None) -> None:
        """It is wanted for an item too, or (`None`) for the program itself."""
        if self.item is None or (item is not None and item.rank >= self.item.rank):
            return
        self.item = item
        if self.request is not None:
            self.request.item = None if item is None else item.rank
            self.request.on_moved()

    def begin_attempt(self) -> OnDelta | None:
        """An engine is about to compute the answer: who is to hear its text, if anybody."""
        self.doing = "waits for its engine"
        self.usage.sent_s = asyncio.get_running_loop().time()
        self.usage.num_attempts += 1
        self.begin()
        if self.stream is None:
            return None
        assert isinstance(self.node, LlmNode)
        self.stream.restart(is_repeatable=self.node.call.sampling.is_deterministic)
        return self.stream.on_delta

    def credit(self, source: Source) -> None:
        """What was to be computed came from elsewhere."""
        self.nodes = [(node, source if s == "engine" else s) for node, s in self.nodes]
