"""A session's calls: made, awaited, planned as one frontier, and answered.

This is the walk of one call. An await asks for a flight; flights that are asked for together become
a logical plan, which the rules rewrite; what that lowers to is carried out by the executor.
"""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import _get_running_loop
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import count
from typing import Any

from helium_agents.errors import SessionError
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM, ended
from helium_agents.graph.cycles import check_not_inside_itself
from helium_agents.graph.inline import check_may_await
from helium_agents.graph.llm_node import LlmNode, describe
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Value
from helium_agents.graph.plan import logical_plan
from helium_agents.graph.plan_node import COMPUTE
from helium_agents.graph.ref import value_of
from helium_agents.graph.trace import (
    Frame,
    check_effect,
    check_on_loop,
    entered_frame,
    withdraw_root,
)
from helium_agents.optimizer.optimize import lower, optimize
from helium_agents.optimizer.rules import substitute_known
from helium_agents.runtime.answers import Found
from helium_agents.runtime.evaluator import Evaluator
from helium_agents.runtime.executor import Executor
from helium_agents.runtime.flight import Flight, Waiter
from helium_agents.runtime.flights import Flights
from helium_agents.runtime.inline_work import InlineWork
from helium_agents.runtime.parts import Parts
from helium_agents.runtime.reports import Reports
from helium_agents.runtime.settle import Settler
from helium_agents.runtime.speculation.learned_guesses import LearnedGuesses
from helium_agents.runtime.speculation.speculation import Speculation
from helium_agents.runtime.streaming import StreamBuffer
from helium_agents.runtime.timeout import WaiterTimeout
from helium_agents.runtime.waiting import OpenMap, waiting
from helium_agents.telemetry.events import CallMade, Planned

_HITS_BETWEEN_YIELDS = 64


class Calls:
    """All calls of an open session; what `graph.trace.Runner` asks for.

    Attributes:
        dispatcher, tasks, emit, is_watched: As given.
        models: The session's models by name.
        root: The frame of code that is in no other frame of the session.
        flights: All unfinished calls that are planned.
        maps: The open maps, for `waiting`.
        ranks: Counts the rows that maps read.
        loop: The event loop of the session.
        thread_id: The thread that it runs in.
        next_number: Gives a number that no other call, tool or workflow of the session has.
        when_committed: Calls back, with the error if there is one, once all answers kept so far
            are durable.
        inline: The calls of plain operators and tools.
    """

    def __init__(self, parts: Parts) -> None:
        self.root = Frame(self, level=("run", parts.run_id))
        self.maps: dict[OpenMap, None] = {}
        self.ranks = count()
        self.models = engines = parts.engines
        self.dispatcher = dispatcher = parts.dispatcher
        self.tasks = tasks = parts.tasks
        self.emit = emit = parts.emit
        self.is_watched = parts.is_watched
        self.loop = tasks.loop
        self.thread_id = threading.get_ident()
        answers, self._rules, self._shares = parts.answers, parts.rules, parts.shares
        self._answers = answers if substitute_known in self._rules else None  # for rules to put in
        self._executed = parts.executed
        self.when_committed = _call_back if answers is None else answers.commits.when_done
        self.next_number: Callable[[], int] = count(1).__next__
        self._num_at_once = 0
        settler = Settler(emit, engines, answers)
        self.flights = Flights(self._plan, settler.settle, settler.report_left, self._closed_before)
        reports = Reports(emit, engines) if self.is_watched else None
        self.inline = inline = InlineWork(tasks, reports)
        self.on_awaited, self.on_ended, self.running_tool = inline.began, inline.ended, inline.tool
        common = engines, dispatcher, self.flights, answers
        evaluator = Evaluator(*common, self._speculation(parts), reports, self.next_number)
        looks_up = self._answers is not None
        self._executor = Executor(*common, tasks, evaluator, looks_up=looks_up, shares=self._shares)

    def _speculation(self, parts: Parts) -> Speculation | None:
        if parts.stakes is None or self._answers is None:
            return None
        made_of = parts.engines, parts.dispatcher, self.flights, self._answers, parts.tasks
        planner = parts.planner
        learned = LearnedGuesses(planner.histograms if planner is not None else lambda _: ())
        is_watched = parts.is_watched
        return Speculation(*made_of, parts.stakes, learned, parts.emit, is_watched=is_watched)

    # --- made ----------------------------------------------------------------------------------

    def on_created(self, node: Node) -> None:
        """A call was made."""
        if not self.tasks.is_open or _get_running_loop() is not self.loop:
            check_on_loop(node.label)
            self.tasks.check_open()
        if not node.is_planned:
            self.inline.calls[node] = None
        elif node.frame.item is not None:
            self.dispatcher.declare(node)
        if self.is_watched:
            node.number = self.next_number()
            if node.is_planned and node.frame.node is None and node.frame.item is None:
                self.emit(CallMade(node.number))
            if self._executed is not None:
                self._executed.add(node)

    def on_effect(self) -> None:
        """Nothing: what runs in the session itself is no guess."""

    def start(self, node: Node) -> None:
        """Demand a call on the session's own behalf; its error, if any, stays with its Ref."""
        self.tasks.check_open()
        check_effect(entered_frame())
        if node.is_planned:
            self.flights.want(self.flights.ask(node, node.frame.item))
        else:
            self.on_ended(node)
            self.tasks.spawn(_ignore_outcome(node))

    # --- awaited -------------------------------------------------------------------------------

    async def wait(self, node: Node) -> Any:
        """The value of a pure or model call."""
        frame = entered_frame()
        item = self._check_awaiter(node, frame)
        if node.outcome is not None:  # it has come since the coroutine was made
            return node.outcome.get()
        is_asked = node.flight is not None
        if not is_asked and self._is_known(node, item):
            if self._num_at_once % _HITS_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)  # or a loop over remembered calls could not be interrupted
        else:
            timeout = None if node.timeout_s is None else _timeout_of(node, node.timeout_s)
            waiter = self.flights.wait(node, item, frame or self.root, timeout)
            if not is_asked and self._answers is not None:
                waiter.flight.num_kept = self._answers.num_kept
            try:
                await (waiter.landed if timeout is None else timeout.wait_for(waiter.landed))
            except BaseException as error:
                await self._leave(waiter, error)
                raise
            finally:
                if timeout is not None:
                    timeout.stop()
        outcome = node.outcome
        assert outcome is not None
        return outcome.value if isinstance(outcome, Value) else outcome.get()

    def _is_known(self, node: Node, item: Any) -> bool:
        """Settle a call that is remembered and that nobody has asked for yet.

        What is known needs no plan, since it needs nothing else; and most calls of a warm run are.
        """
        if self._answers is None:
            return False
        found = self._answers.look_up(node)
        if found is None:
            return False
        self._executor.settle_known(self.flights.new(node, item), found)
        self._num_at_once += 1
        return True

    async def stream(self, node: Node) -> AsyncIterator[str]:
        """The text of a model call, piece by piece."""
        assert isinstance(node, LlmNode)
        frame = entered_frame()
        item = self._check_awaiter(node, frame)
        if node.outcome is not None:
            yield node.outcome.get().text
            return
        timeout = None if node.timeout_s is None else _timeout_of(node, node.timeout_s)
        waiter = self.flights.wait(node, item, frame or self.root, timeout)
        flight, landed = waiter.flight, waiter.landed
        flight.stream = flight.stream or StreamBuffer()
        try:
            async for piece in flight.stream.read(landed, timeout):
                yield piece
            await (landed if timeout is None else timeout.wait_for(landed))
        except BaseException as error:
            await self._leave(waiter, error)
            raise
        finally:
            if timeout is not None:
                timeout.stop()
        assert node.outcome is not None
        node.outcome.get()  # the error of a call that failed

    def _check_awaiter(self, node: Node, frame: Frame | None) -> Any:
        """Check that the call may be awaited in the frame; returns the item it is wanted for."""
        if not self.tasks.is_open or _get_running_loop() is not self.loop:
            self.tasks.check_open()
        if frame is not None and frame.is_pure:
            check_may_await(node, frame)
        if isinstance(node, OperatorNode):
            check_not_inside_itself(node, frame)
        return node.frame.item if frame is None or frame.item is None else frame.item

    async def _leave(self, waiter: Waiter, why: BaseException) -> None:
        """Leave a flight, and see its end if it ends by that."""
        ending = self.flights.leave(waiter)
        # who closes a session waits for all; who is closed may await nothing any more
        if self.tasks.is_open and not isinstance(why, GeneratorExit):
            await ended(ending)

    # --- planned -------------------------------------------------------------------------------

    def _plan(self, wanted: list[Flight]) -> None:
        """Plan what is wanted as one frontier, and begin it."""
        start_s = time.perf_counter()
        plan, nodes = logical_plan([flight.node for flight in wanted])
        known: dict[bytes, Found] = {}
        if self._answers is not None:
            for planned, node in zip(plan.nodes.values(), nodes, strict=True):
                if planned.step is not COMPUTE or planned.key is None:
                    continue
                if node.flight is not None and node.flight.num_kept == self._answers.num_kept:
                    continue  # it was not there when it was asked, and nothing has come since
                found = self._answers.look_up(node)
                if found is not None:
                    known[planned.key] = found
        plan = optimize(plan, known, self._rules)
        physical = lower(plan, self.flights.under_way if self._shares else None)
        if self.is_watched:
            self.emit(Planned(len(nodes), physical.num_computed, time.perf_counter() - start_s))
        flights = self.flights.of(physical, nodes, shares=self._shares)
        self._executor.carry_out(physical, flights)

    # --- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """No more calls may be made; what is under way ends. Idempotent."""
        if not self.tasks.is_open:
            return
        withdraw_root(self.root, self.loop)
        self.tasks.begin_to_close()
        for flight in (*self.flights.wanted, *self.flights.planned):
            if flight.task is None:
                self.flights.end(flight, None)

    def waiting(self) -> str:
        """Which calls wait for what, and for how long, as a tree for a person."""
        if not self.tasks.is_open:
            return f"the session is {self.tasks.state}"
        return waiting(
            [*self.flights.wanted, *self.flights.planned],
            self.inline.running,
            self.inline.tools,
            self.maps,
            self.dispatcher.states,
            self.loop.time(),
        )

    def _closed_before(self, node: Node) -> SessionError | None:
        """The error of a call that the session's end left without an answer, once it has ended."""
        if self.tasks.is_open:
            return None
        return SessionError(f"the session was closed before {describe(node)} was answered")


def _call_back(callback: Callable[[BaseException | None], None]) -> None:
    """Where nothing is remembered, all is as durable as it will be."""
    callback(None)


async def _ignore_outcome(node: Node) -> None:
    try:
        await value_of(node)
    except (asyncio.CancelledError, *ENDS_THE_PROGRAM):
        raise
    except BaseException:
        return  # it belongs to the Ref, which keeps it


def _timeout_of(node: Node, timeout_s: float) -> WaiterTimeout:
    return WaiterTimeout(timeout_s, partial(describe, node))
