"""Single flight: one computation for all who want the same answer, for as long as anyone does.

A flight belongs to one or more nodes and is wanted by waiters. It is pending until it is planned,
then runs in a task of the session, then is settled. Cancelling one waiter never cancels the
flight; when the last one leaves, the task is cancelled and its clean-up awaited, and its nodes
are back where they were before anyone asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from helium_agents.graph.node import Node, Outcome
from helium_agents.runtime.streaming import StreamBuffer
from helium_agents.telemetry.events import Source


class Waiter:
    """One who wants a flight's outcome: an awaiter of a Ref, or a flight that needs it as input."""

    __slots__ = ("flight", "future")

    def __init__(self, flight: Flight, future: asyncio.Future[None]) -> None:
        self.flight = flight
        self.future = future


class Flight:
    """A computation in the making. See the module's first lines.

    Args:
        node: The node that it was begun for.
        start_s: When, by the event loop's clock.
    """

    __slots__ = (
        "_on_admitted", "holds", "is_admitted", "keys", "nodes", "raw", "start_s", "stream",
        "task", "waiters",
    )  # fmt: skip

    def __init__(self, node: Node, start_s: float) -> None:
        self.nodes: list[tuple[Node, Source]] = [(node, "engine")]
        self.waiters: set[Waiter] = set()
        self.holds: list[Waiter] = []  # our own interest in the flights of our inputs
        self.keys: list[bytes] = []  # where the table of flights lists us
        self.task: asyncio.Task[None] | None = None
        self.raw: Outcome | None = None
        self.is_admitted = False
        self.stream: StreamBuffer | None = None
        self.start_s = start_s
        self._on_admitted: list[Callable[[], None]] = []
        node.flight = self

    @property
    def node(self) -> Node:
        """The node whose question is computed."""
        return self.nodes[0][0]

    def add_waiter(self) -> Waiter:
        """Register interest; the caller hands it back through `Flights.leave`."""
        waiter = Waiter(self, asyncio.get_running_loop().create_future())
        if self.raw is not None:
            waiter.future.set_result(None)
        else:
            self.waiters.add(waiter)
        return waiter

    def absorb(self, other: Flight, how: Source) -> None:
        """Answer another flight's nodes and waiters too; the other must not have begun."""
        for node, _ in other.nodes:
            self.nodes.append((node, how))
            node.flight = self
        for waiter in other.waiters:
            waiter.flight = self
        self.waiters |= other.waiters
        for callback in other._on_admitted:
            self.when_admitted(callback)
        if other.stream is not None:
            self.stream = self.stream or StreamBuffer()
            self.stream.absorb(other.stream)
        other.nodes, other.waiters = [], set()

    def when_admitted(self, callback: Callable[[], None]) -> None:
        """Call back once the computation proper begins (at once if it has)."""
        if self.is_admitted:
            callback()
        else:
            self._on_admitted.append(callback)

    def admit(self) -> None:
        """The computation proper begins now."""
        if not self.is_admitted:
            self.is_admitted = True
            for callback in self._on_admitted:
                callback()
            self._on_admitted.clear()

    def land(self, raw: Outcome) -> None:
        """The outcome is there: wake everybody."""
        self.raw = raw
        for waiter in self.waiters:
            if not waiter.future.done():
                waiter.future.set_result(None)
        self.waiters.clear()


class Flights:
    """The flights that run, by key."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Flight] = {}
        self._all: set[Flight] = set()

    def get(self, key: bytes | None) -> Flight | None:
        """The running flight that computes the answer to `key`."""
        return None if key is None else self._by_key.get(key)

    def register(self, flight: Flight, key: bytes | None) -> None:
        """List a running flight, under `key` if it may be joined."""
        self._all.add(flight)
        if key is not None:
            self._by_key[key] = flight
            flight.keys.append(key)

    def forget(self, flight: Flight) -> None:
        """Nobody can join the flight any more."""
        self._all.discard(flight)
        for key in flight.keys:
            if self._by_key.get(key) is flight:
                del self._by_key[key]
        flight.keys.clear()

    def running(self) -> list[Flight]:
        """All running flights."""
        return list(self._all)

    async def leave(self, waiter: Waiter, withdraw: Callable[[Flight], None]) -> None:
        """Give up interest; the last to leave an unfinished flight ends it and waits for its end.

        Args:
            waiter: Who leaves.
            withdraw: Takes a flight that has not begun out of the planner's hands.
        """
        flight = waiter.flight
        flight.waiters.discard(waiter)
        if flight.waiters or flight.raw is not None:
            return
        self.forget(flight)
        for node, _ in flight.nodes:
            if node.flight is flight:
                node.flight = None
        if flight.task is None:
            withdraw(flight)
        else:
            flight.task.cancel()
            await asyncio.wait([flight.task])
        await self.release(flight, withdraw)

    async def release(self, flight: Flight, withdraw: Callable[[Flight], None]) -> None:
        """Give up a flight's interest in its inputs."""
        holds, flight.holds = flight.holds, []
        for hold in holds:
            await self.leave(hold, withdraw)
