"""Flights: one computation for all who want the same answer, for as long as anyone does.

The whole life of a flight is in this file. It is

- *wanted* from when somebody asks, until the frontier it belongs to is planned;
- *planned*, while it waits for its inputs or for the flight whose answer it takes;
- *running*, in a task of the session;
- *landed*: it has an outcome, every call that it was for is settled, everybody who waits is woken;
- or *left*: the last who wanted it is gone. Its task is cancelled, it gives up its own interest in
  others, and its calls are back where they were before anyone asked.

Cancelling one waiter never cancels the flight. Whatever ends a flight's task, `end` sees to it that
the flight is landed or left: nobody ever joins a finished one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from helium_agents.errors import RefCancelled
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM
from helium_agents.graph.cycles import check_cycle
from helium_agents.graph.llm_node import describe
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Failure, Outcome
from helium_agents.graph.plan_node import COMPUTE, Prefix, Same
from helium_agents.graph.trace import Frame
from helium_agents.optimizer.optimize import Cut, PhysicalPlan
from helium_agents.runtime.flight import Awaiter, Flight, Holder, Waiter
from helium_agents.runtime.item import Item
from helium_agents.runtime.timeout import WaiterTimeout
from helium_agents.telemetry.events import Source, Usage


class Flights:
    """All unfinished flights, and every step of their lives.

    What is wanted is gathered until a turn of the event loop adds nothing, so that fifty siblings
    which are demanded one by one are planned as one frontier.

    Args:
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
        plan: Callable[[list[Flight]], None],
        settle: Callable[[Flight, Outcome], None],
        report_left: Callable[[Flight], None],
        closed: Callable[[Node], BaseException | None],
    ) -> None:
        self.wanted: dict[Flight, None] = {}
        self.planned: dict[Flight, None] = {}
        self.under_way: dict[bytes, Flight] = {}
        self._is_gathering = False
        self._plan_frontier = plan
        self._settle = settle
        self._report_left = report_left
        self._closed = closed

    # --- who computes what ----------------------------------------------------------------------

    def ask(self, node: Node, item: Item | None) -> Flight:
        """The flight of a call without an outcome, to be planned with all that are wanted now."""
        flight: Flight | None = node.flight
        if flight is not None:
            flight.want_for(item)
            return flight
        flight = self.new(node, item)
        self.wanted[flight] = None
        if not self._is_gathering:
            self._is_gathering = True
            asyncio.get_running_loop().call_soon(self._gather, 0)
        return flight

    def new(self, node: Node, item: Item | None) -> Flight:
        """A flight of a call that has none."""
        usage = Usage(asyncio.get_running_loop().time())
        flight: Flight = Flight(node, [(node, "engine")], usage, item)
        node.flight = flight
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

    def of(self, plan: PhysicalPlan, nodes: Sequence[Node], *, shares: bool) -> dict[int, Flight]:
        """The flights of a plan's calls, each before those that it needs, and listed.

        Args:
            plan: What is decided.
            nodes: The calls; the first is number 1.
            shares: Whether those that are computed may be joined.
        """
        items: dict[int, Item | None] = {}
        flights: dict[int, Flight] = {}
        for id_ in reversed(plan.actions):
            action, planned = plan.actions[id_], plan.logical.nodes[id_]
            node = nodes[id_ - 1]
            flight = flights[id_] = node.flight or self.new(node, items.get(id_))
            self.plan(flight)
            if action is COMPUTE:
                if shares and planned.content is not None:
                    self.enlist(flight, planned.record_key, planned.key)
                for source in planned.inputs:
                    items.setdefault(source, flight.item)
            elif isinstance(action, Same | Prefix):
                items.setdefault(action.of, flight.item)
            if isinstance(action, Prefix | Cut):
                self.enlist(flight, planned.key)
        return flights

    # --- wanting --------------------------------------------------------------------------------

    def wait(
        self, node: Node, item: Item | None, frame: Frame, timeout: WaiterTimeout | None = None
    ) -> Awaiter:
        """Register this task's interest in a call; who goes before it is answered calls `leave`.

        Args:
            node: The call; without an outcome.
            item: The item of a `map` for whom it is wanted.
            frame: Where it is awaited.
            timeout: Begins when the computation proper does.

        Raises:
            RefMisuse: The call waits for the one who would wait for it.
        """
        flight = self.ask(node, item)
        on_begun = None if timeout is None else timeout.begin
        landed = asyncio.get_running_loop().create_future()
        waiter = Awaiter(flight, on_begun, frame, asyncio.current_task(), landed=landed)
        if flight.task is not None or flight.holds:
            _check_cycle(waiter, flight)
        self._add(waiter)
        return waiter

    def want(self, flight: Flight) -> None:
        """Register the interest of one who never leaves, and awaits nothing."""
        self._add(Waiter(flight))

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
        waiter = Holder(flight, on_begun, holder=holder, on_landed=wake, end=self._land_early)
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
        other.take_over(flight, how)
        self._unlist(flight)

    # --- landing --------------------------------------------------------------------------------

    def end(self, flight: Flight, error: BaseException | None) -> None:
        """The flight's task has ended, perhaps by being cancelled, even before it began."""
        if flight.outcome is None:
            error = error or self._closed(flight.node)
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
            for waiter in waiters:  # who started a call without awaiting it need not be woken
                if isinstance(waiter, Holder):
                    waiter.on_landed()
                elif isinstance(waiter, Awaiter) and not waiter.landed.done():
                    waiter.landed.set_result(None)
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
