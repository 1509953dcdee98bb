"""A flight: a computation in the making, and those who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from helium_agents.engines.engine import OnDelta, Request
from helium_agents.errors import RefMisuse
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node
from helium_agents.graph.outcome import Failure, Outcome
from helium_agents.graph.task_waits import Stuck, Task
from helium_agents.graph.trace import Frame
from helium_agents.graph.waits import EndableWait
from helium_agents.runtime.item import Item
from helium_agents.runtime.streaming import StreamBuffer
from helium_agents.telemetry.events import Source, Usage


@dataclass(slots=True, eq=False)
class Waiter(EndableWait):
    """One who wants a flight's outcome; by itself one who started a call without awaiting it.

    Args:
        flight: The flight, which may change while it is wanted.
        on_begun: Called once the computation proper begins.
        frame: Where the call is awaited; `None` for who is in no task.
        task: The task that awaits it.
        holder: The flight that wants it, if it is one.
    """

    flight: Flight
    on_begun: Callable[[], None] | None = None
    frame: Frame | None = None
    task: Task | None = None
    holder: Flight | None = None

    @property
    def awaited(self) -> Node:
        """The call that it waits for."""
        return self.flight.node

    @property
    def is_over(self) -> bool:
        """Whether it waits no longer."""
        return self not in self.flight.waiters


@dataclass(slots=True, eq=False, kw_only=True)
class Awaiter(Waiter):
    """A task that awaits a flight.

    Args:
        landed: Made done once it has landed, and given an error if it never can.
    """

    landed: asyncio.Future[None]

    def fail(self, error: RefMisuse) -> None:
        """End the wait."""
        if not self.landed.done():
            self.landed.set_exception(error)
            if self.flight.stream is not None:
                self.flight.stream.wake()


@dataclass(slots=True, eq=False, kw_only=True)
class Holder(Waiter):
    """A flight that needs another, as an input or to take its answer.

    Args:
        on_landed: Called when the other has landed.
        end: Ends the flight that needs it.
    """

    on_landed: Callable[[], None]
    end: Callable[[Flight, Outcome], None]

    @property
    def node(self) -> Node:
        """The call that needs it."""
        assert self.holder is not None
        return self.holder.node

    def is_certain(self, stuck: Stuck) -> bool:
        """A flight does not go on without what it holds."""
        return True

    def fail(self, error: RefMisuse) -> None:
        """End the flight."""
        assert self.holder is not None
        self.end(self.holder, Failure(error))


@dataclass(slots=True, eq=False)
class Flight:
    """A computation in the making. `Flights` tells how it lives.

    Args:
        node: The call whose question is computed.
        nodes: The calls that it answers, and how each came to it; the first asks.
        usage: When it did what, and how much.
        item: The first of the items of maps that it is wanted for; `None` if not all who want it
            are in one.
        waiters: Who wants it.
        holds: Its own interest in other flights.
        keys: Where the table of flights lists it.
        task: What computes it.
        outcome: What it came to, before each call's own form is made of it.
        has_plan: Whether it is decided how it comes to its answer.
        has_begun: Whether the computation proper has begun: timeouts count from then.
        is_left: Whether nobody wants it any more.
        num_kept: How many answers had been kept when none was found for it; -1 where nobody has
            looked.
        calls_below: Model calls that were made for the result of a pure operator.
        leader: The call whose answer it took, if it took one that was under way.
        next_input: How many of the inputs are known to be there, in their order.
        stream: Its text as it comes, where somebody reads it.
        doing: What it does or waits for, in words.
        request: What the dispatcher was given to find the answer.
    """

    node: Node
    nodes: list[tuple[Node, Source]]
    usage: Usage
    item: Item | None
    waiters: dict[Waiter, None] = field(default_factory=dict)
    holds: tuple[Waiter, ...] = ()
    keys: tuple[bytes, ...] = ()
    task: asyncio.Task[None] | None = None
    outcome: Outcome | None = None
    has_plan: bool = False
    has_begun: bool = False
    is_left: bool = False
    num_kept: int = -1
    calls_below: int = 0
    leader: Node | None = None
    next_input: int = 0
    stream: StreamBuffer | None = None
    doing: str = "waits to be planned"
    request: Request | None = None

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

    def take_over(self, other: Flight, how: Source) -> None:
        """Answer the calls and waiters of another, which has not begun."""
        self.want_for(other.item)
        for node, _ in other.nodes:
            self.nodes.append((node, how))
            node.flight = self
        for waiter in other.waiters:
            waiter.flight = self
            if self.has_begun and waiter.on_begun is not None:
                waiter.on_begun()
        self.waiters |= other.waiters
        if other.stream is not None:
            self.stream = self.stream or StreamBuffer()
            self.stream.absorb(other.stream)
        other.nodes, other.waiters = [], {}

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
