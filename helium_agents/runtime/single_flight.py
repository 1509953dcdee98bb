"""Single flight: one computation for all who want the same answer, for as long as anyone does.

A flight belongs to one or more nodes and is wanted by waiters. It is pending until it is planned,
then runs in a task of the session, then is settled. Cancelling one waiter never cancels the
flight; when the last one leaves, the task is cancelled and its clean-up awaited, and its nodes
are back where they were before anyone asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from helium_agents.engines.engine import Delta
from helium_agents.graph.concurrently import ended
from helium_agents.graph.node import LlmNode, Node, Outcome
from helium_agents.runtime.streaming import StreamBuffer
from helium_agents.telemetry.events import Source


class Waiter:
    """One who wants a flight's outcome: an awaiter of a Ref, or a flight that needs it as input.

    Args:
        flight: The flight, which may change while it is pending.
        on_admitted: Called once the computation proper begins.
    """

    __slots__ = ("flight", "future", "on_admitted")

    def __init__(self, flight: Flight, on_admitted: Callable[[], None] | None) -> None:
        self.flight = flight
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_admitted = on_admitted


class Flight:
    """A computation in the making. See the module's first lines.

    Args:
        node: The node that it was begun for.
        start_s: When, by the event loop's clock.
    """

    __slots__ = (
        "holds", "is_admitted", "keys", "nodes", "raw", "start_s", "stream", "task",
        "unknown_at", "waiters",
    )  # fmt: skip

    def __init__(self, node: Node, start_s: float) -> None:
        self.nodes: list[tuple[Node, Source]] = [(node, "engine")]
        self.waiters: set[Waiter] = set()
        self.holds: tuple[Waiter, ...] = ()  # our own interest in other flights
        self.keys: tuple[bytes, ...] = ()  # where the table of flights lists us
        self.task: asyncio.Task[None] | None = None
        self.raw: Outcome | None = None
        self.is_admitted = False
        self.unknown_at: int | None = None  # see `Flights.is_unknown`
        self.stream: StreamBuffer | None = None
        self.start_s = start_s
        node.flight = self

    @property
    def node(self) -> Node:
        """The node whose question is computed."""
        return self.nodes[0][0]

    def add_waiter(self, on_admitted: Callable[[], None] | None = None) -> Waiter:
        """Register interest; who leaves early tells `Flights.leave`."""
        waiter = Waiter(self, on_admitted)
        if self.raw is not None:
            waiter.future.set_result(None)
            return waiter
        self.waiters.add(waiter)
        if self.is_admitted and on_admitted is not None:
            on_admitted()
        return waiter

    def hold(self, other: Flight, on_admitted: Callable[[], None] | None = None) -> Waiter:
        """Register this flight's own interest in another, until it ends."""
        waiter = other.add_waiter(on_admitted)
        self.holds = (*self.holds, waiter)
        return waiter

    def absorb(self, other: Flight, how: Source) -> None:
        """Answer another flight's nodes and waiters too; the other must not have begun."""
        for node, _ in other.nodes:
            self.nodes.append((node, how))
            node.flight = self
        for waiter in other.waiters:
            waiter.flight = self
            if self.is_admitted and waiter.on_admitted is not None:
                waiter.on_admitted()
        self.waiters |= other.waiters
        if other.stream is not None:
            self.stream = self.stream or StreamBuffer()
            self.stream.absorb(other.stream)
        other.nodes, other.waiters = [], set()

    def admit(self) -> None:
        """The computation proper begins now."""
        if not self.is_admitted:
            self.is_admitted = True
            for waiter in self.waiters:
                if waiter.on_admitted is not None:
                    waiter.on_admitted()

    def listen(self) -> Callable[[Delta], None] | None:
        """A request for the answer begins: who is to hear its text, if anybody."""
        if self.stream is None:
            return None
        assert isinstance(self.node, LlmNode)
        self.stream.restart(is_repeatable=self.node.call.sampling.is_deterministic)
        return self.stream.on_delta

    def land(self, raw: Outcome) -> None:
        """The outcome is there: wake everybody."""
        self.raw = raw
        for waiter in self.waiters:
            if not waiter.future.done():
                waiter.future.set_result(None)
        self.waiters.clear()


class Flights:
    """All unfinished flights: those that wait to be planned, and those that run, by key."""

    def __init__(self) -> None:
        self.pending: dict[Flight, None] = {}
        self._by_key: dict[bytes, Flight] = {}
        self._num_late = 0

    def note_unknown(self, flight: Flight) -> None:
        """The flight's answer was looked up in vain, and no running flight computes it."""
        flight.unknown_at = self._num_late

    def is_unknown(self, flight: Flight) -> bool:
        """Whether that is so still, or will be until the flight is listed itself.

        Flights are listed when they are planned, all that were demanded together, so none slips
        in between; but for those that learn late what they ask, when their inputs are known.
        """
        return flight.unknown_at == self._num_late

    def get(self, key: bytes | None) -> Flight | None:
        """The running flight that computes the answer to `key`."""
        return None if key is None else self._by_key.get(key)

    def register(self, flight: Flight, *keys: bytes | None) -> None:
        """List a running flight under those of the keys that there are: it may then be joined."""
        for key in keys:
            if key is not None:
                self._by_key[key] = flight
                flight.keys = (*flight.keys, key)

    def register_late(self, flight: Flight, key: bytes | None) -> None:
        """List a flight that runs already and has just learnt its key."""
        self._num_late += 1
        self.register(flight, key)

    def forget(self, flight: Flight) -> None:
        """Nobody can join the flight any more."""
        self.pending.pop(flight, None)
        for key in flight.keys:
            if self._by_key.get(key) is flight:
                del self._by_key[key]
        flight.keys = ()

    async def leave(self, waiter: Waiter) -> None:
        """Give up interest, and wait for the clean-up of everything that ends by it."""
        await ended(f.task for f in self.give_up(waiter) if f.task is not None)

    def give_up(self, waiter: Waiter) -> list[Flight]:
        """Give up interest without waiting; returns the flights that end by it."""
        ending: list[Flight] = []
        leaving = [waiter]
        while leaving:
            waiter = leaving.pop()
            flight = waiter.flight
            flight.waiters.discard(waiter)
            if flight.waiters or flight.raw is not None:
                continue
            self.forget(flight)
            for node, _ in flight.nodes:
                if node.flight is flight:
                    node.flight = None
            if flight.task is not None and not flight.task.cancelling():
                flight.task.cancel()  # once: a second time would interrupt its clean-up
            ending.append(flight)
            leaving += flight.holds
            flight.holds = ()
        return ending

    async def leave_inputs(self, flight: Flight) -> None:
        """Give up a flight's interest in others, and wait for the clean-up of what ends by it."""
        holds, flight.holds = flight.holds, ()
        ending = [other for hold in holds for other in self.give_up(hold)]
        await ended(f.task for f in ending if f.task is not None)

    def release(self, flight: Flight) -> None:
        """Give up a finished flight's own interest in others."""
        holds, flight.holds = flight.holds, ()
        for hold in holds:
            self.give_up(hold)
