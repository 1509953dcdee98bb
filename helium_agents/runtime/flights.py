"""Flights: one computation for all who want the same answer, for as long as anyone does.

The whole life of a flight is in this file. It is

- *wanted* from when somebody asks, until the frontier it belongs to is planned;
- *planned*, while it waits for its inputs or for the flight whose answer it takes;
- *running*, in a task of the session;
- *landed*: it has an outcome, every call that it was for is settled, everybody who waits is woken;
- or *left*: the last who wanted it is gone. Its task is cancelled, it gives up its own interest in
  others, and its calls are back where they were before anyone asked.

Cancelling one waiter never cancels the flight. Whatever ends a flight's task, the flight is landed
or left after it: nobody ever joins a finished one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

from helium_agents.errors import RefCancelled
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM, error_of
from helium_agents.graph.cycles import check_cycle
from helium_agents.graph.naming import describe
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Failure, Outcome
from helium_agents.graph.trace import Frame
from helium_agents.runtime.alarm import Alarm
from helium_agents.runtime.flight import Awaiter, Flight, Holder, Waiter
from helium_agents.runtime.item import Item
from helium_agents.runtime.streaming import StreamBuffer
from helium_agents.runtime.tasks import Tasks
from helium_agents.telemetry.events import Source

Settle = Callable[[Flight, Outcome], None]
Report = Callable[[Flight], None]


class Flights:
    """All unfinished flights, and every step of their lives.

    What is wanted is gathered until a turn of the event loop adds nothing, so that fifty siblings
    which are demanded one by one are planned as one frontier.

    Args:
        tasks: The session's tasks.
        context: Where flights run.
        plan: Takes a frontier.
        settle: Gives a landed flight's calls their outcomes.
        report_left: Says that a flight which had begun is not wanted any more.
        closed: Makes the error of a call that the session's end left without an answer; `None`
            while the session is open.

    Attributes:
        wanted: Those that are to be planned.
        planned: Those that wait or run.
        under_way: Those that may be joined, by key and by record key.
    """

    def __init__(
        self,
        tasks: Tasks,
        context: Context,
        plan: Callable[[list[Flight]], None],
        settle: Settle,
        report_left: Report,
        closed: Callable[[Node], BaseException | None],
    ) -> None:
        self.wanted: dict[Flight, None] = {}
        self.planned: dict[Flight, None] = {}
        self.under_way: dict[bytes, Flight] = {}
        self._is_gathering = False
        self._tasks = tasks
        self._context = context
        self._plan_frontier = plan
        self._settle = settle
        self._report_left = report_left
        self._closed = closed

    # --- who computes what ----------------------------------------------------------------------

    def ask(self, node: Node, item: Item | None) -> Flight:
        """The flight of a call that somebody wants, to be planned with all that are wanted now.

        Args:
            node: The call; without an outcome.
            item: The item of a `map` for whom it is wanted.
        """
        flight: Flight | None = node.flight
        if flight is not None:
            flight.want_for(item)
            return flight
        loop = asyncio.get_running_loop()
        flight = Flight(node, loop.time(), item)
        self.wanted[flight] = None
        if not self._is_gathering:
            self._is_gathering = True
            loop.call_soon(self._gather, 0)
        return flight

    def _gather(self, num_before: int) -> None:
        if len(self.wanted) > num_before:
            asyncio.get_running_loop().call_soon(self._gather, len(self.wanted))
            return
        self._is_gathering = False
        frontier = list(self.wanted)
        if not frontier:
            return
        self.wanted.clear()
        try:
            self._plan_frontier(frontier)
        except BaseException as error:  # of the store or a rule; raised here, nobody would hear it
            for flight in frontier:
                if flight.task is None:
                    self.land(flight, Failure(error))
            if isinstance(error, ENDS_THE_PROGRAM):
                raise

    def enlist(self, flight: Flight, *keys: bytes | None) -> None:
        """List a flight under those of the keys that there are: it may then be joined."""
        for key in keys:
            if key is not None:
                self.under_way[key] = flight
                flight.keys = (*flight.keys, key)

    def _unlist(self, flight: Flight) -> None:
        self.wanted.pop(flight, None)
        self.planned.pop(flight, None)
        for key in flight.keys:
            if self.under_way.get(key) is flight:
                del self.under_way[key]
        flight.keys = ()

    def plan(self, flight: Flight) -> None:
        """It is decided how the flight comes to its answer."""
        self.wanted.pop(flight, None)
        self.planned[flight] = None
        flight.has_plan = True

    # --- wanting --------------------------------------------------------------------------------

    def wait(
        self,
        flight: Flight,
        landed: asyncio.Future[None],
        frame: Frame,
        alarm: Alarm | None = None,
    ) -> Waiter:
        """Register a task's interest in a flight; who goes before it lands calls `leave`.

        Args:
            flight: The flight, unfinished.
            landed: Made done when it has landed, and given an error if it never can.
            frame: Where the call is awaited.
            alarm: Begins when the computation proper does.

        Raises:
            RefMisuse: The flight waits for the one who would wait for it.
        """
        waiter = Awaiter(flight, landed, frame, alarm)
        if flight.task is not None or flight.holds:
            _check_cycle(waiter, flight)
        self._add(waiter)
        return waiter

    def want(self, flight: Flight) -> None:
        """Register the interest of one who never leaves, and awaits nothing."""
        self._add(Waiter(flight, None))

    def hold(
        self,
        holder: Flight,
        flight: Flight,
        wake: Callable[[], None],
        *,
        on_begun: Callable[[], None] | None = None,
    ) -> Waiter:
        """Register a flight's own interest in another, until it ends.

        Raises:
            RefMisuse: The other waits for it.
        """
        waiter = Holder(flight, holder, wake, on_begun, self._land_early)
        _check_cycle(waiter, flight)
        flight.want_for(holder.item)
        holder.holds = (*holder.holds, waiter)
        self._add(waiter)
        return waiter

    def _add(self, waiter: Waiter) -> None:
        flight = waiter.flight
        flight.waiters[waiter] = None
        if flight.has_begun and waiter.on_begun is not None:
            waiter.on_begun()

    def join(self, flight: Flight, other: Flight, how: Source) -> None:
        """Let another flight answer the calls and waiters of one that has not begun.

        Raises:
            RefMisuse: The other waits for one of the waiters.
        """
        for waiter in flight.waiters:
            _check_cycle(waiter, other)
        other.want_for(flight.item)
        for node, _ in flight.nodes:
            other.nodes.append((node, how))
            node.flight = other
        for waiter in flight.waiters:
            waiter.flight = other
            if other.has_begun and waiter.on_begun is not None:
                waiter.on_begun()
        other.waiters |= flight.waiters
        if flight.stream is not None:
            other.stream = other.stream or StreamBuffer()
            other.stream.absorb(flight.stream)
        self._unlist(flight)
        flight.nodes, flight.waiters = [], {}

    # --- running --------------------------------------------------------------------------------

    def run(self, flight: Flight, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a planned flight in a task; the work lands it, or else the task's end does."""
        flight.task = self._tasks.spawn(
            self._work(flight, work), self._context.copy(), partial(self._end, flight)
        )

    async def _work(self, flight: Flight, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            self.land(flight, Failure(error))
            if isinstance(error, ENDS_THE_PROGRAM):
                raise

    def _end(self, flight: Flight) -> None:
        """The flight's task has ended, perhaps by being cancelled, even before it began."""
        if flight.outcome is None:
            assert flight.task is not None
            error = error_of(flight.task) or self._closed(flight.node)
            message = f"{describe(flight.node)} was cancelled while it was being computed"
            self.land(flight, Failure(error or RefCancelled(message)))

    def land(self, flight: Flight, outcome: Outcome) -> None:
        """The outcome is there: settle the calls, and wake everybody. Does nothing a second time.

        Of a flight that was left only a value counts, which the calls may have if they are asked
        again; a failure may come of having been cancelled.
        """
        if flight.outcome is not None:
            return
        self._unlist(flight)
        flight.outcome = outcome
        if flight.is_left and isinstance(outcome, Failure):
            return
        try:
            self._settle(flight, outcome)
        finally:
            waiters, flight.waiters = flight.waiters, {}
            for waiter in waiters:
                waiter.wake()
            if flight.holds:
                self.leave_inputs(flight)

    def _land_early(self, flight: Flight, outcome: Outcome) -> None:
        """The flight can never come to another outcome, though it waits for one."""
        task = flight.task
        self.land(flight, outcome)
        if task is not None:
            task.cancel()

    # --- leaving --------------------------------------------------------------------------------

    def leave_inputs(self, flight: Flight) -> list[asyncio.Task[None]]:
        """End a flight's interest in others; returns the tasks that end by it."""
        holds, flight.holds = flight.holds, ()
        return self.leave(*holds)

    def leave(self, *waiters: Waiter) -> list[asyncio.Task[None]]:
        """End an interest; returns the tasks that end by it."""
        ending: list[asyncio.Task[None]] = []
        leaving = [*waiters]
        while leaving:
            waiter = leaving.pop()
            flight = waiter.flight
            flight.waiters.pop(waiter, None)
            if flight.waiters or flight.outcome is not None or flight.is_left:
                continue
            self.leave_unwanted(flight)
            if flight.has_begun:
                self._report_left(flight)
            if flight.task is not None:
                if not flight.task.cancelling():  # a second time would interrupt its clean-up
                    flight.task.cancel()
                ending.append(flight.task)
            leaving += flight.holds
            flight.holds = ()
        return ending

    def leave_unwanted(self, flight: Flight) -> None:
        """Nobody wants the flight: its calls are where they were before anyone asked."""
        flight.is_left = True
        self._unlist(flight)
        for node, _ in flight.nodes:
            if node.flight is flight:
                node.flight = None


def _check_cycle(waiter: Waiter, awaited: Flight) -> None:
    runs_body = awaited.task is not None and isinstance(awaited.node, OperatorNode)
    if runs_body or awaited.holds:  # otherwise it waits for no call
        check_cycle(waiter, awaited.node)
