"""A session's calls: made, awaited, planned as one frontier, and answered.

This is the walk of one call. An await asks for a flight; flights that are asked for together become
a logical plan, which the rules rewrite; what that lowers to is carried out by the executor.
"""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import _get_running_loop
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Literal

from helium_agents.errors import SessionError
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM, ended
from helium_agents.graph.cycles import check_not_inside_itself
from helium_agents.graph.inline import check_may_await
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.naming import describe
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.on_loop import check_on_loop
from helium_agents.graph.outcome import Failure, Value
from helium_agents.graph.plan import logical_plan
from helium_agents.graph.plan_node import COMPUTE
from helium_agents.graph.ref import value_of
from helium_agents.graph.tool_call import ToolCall
from helium_agents.graph.trace import Frame, check_effect, entered_frame, withdraw_root
from helium_agents.optimizer.guesses import Histogram
from helium_agents.optimizer.optimize import lower, optimize
from helium_agents.optimizer.rules import Rule, substitute_known
from helium_agents.runtime.alarm import Alarm
from helium_agents.runtime.answers import Answers, Found
from helium_agents.runtime.bodies import Bodies
from helium_agents.runtime.dispatcher import Dispatcher
from helium_agents.runtime.engine_pool import EnginePool
from helium_agents.runtime.evaluator import Evaluator
from helium_agents.runtime.executed_plan import ExecutedPlan
from helium_agents.runtime.executor import Executor
from helium_agents.runtime.flight import Flight, Waiter
from helium_agents.runtime.flights import Flights
from helium_agents.runtime.learned_guesses import LearnedGuesses
from helium_agents.runtime.planner import Planner
from helium_agents.runtime.reports import Reports
from helium_agents.runtime.settle import Settler
from helium_agents.runtime.speculation import Speculation
from helium_agents.runtime.stakes import Stakes
from helium_agents.runtime.streaming import StreamBuffer
from helium_agents.runtime.tasks import Tasks
from helium_agents.runtime.waiting import OpenMap, RunningTool, waiting
from helium_agents.telemetry.events import CallMade, Observer, Planned

_HITS_BETWEEN_YIELDS = 64


class Calls:
    """All calls of an open session; what `graph.trace.Runner` asks for.

    Args:
        engines: The session's engines.
        dispatcher: Takes requests.
        answers: What is remembered, or `None`.
        tasks: The session's tasks.
        emit: Takes events.
        is_watched: Whether anybody but the summary sees events.
        planner: Learns which calls are made, or `None`.
        rules: The optimizer's rules.
        shares: Whether calls may be merged, joined and remembered.
        executed: Keeps every call, or `None`.
        run_id: Identifies the run's draws.
        stakes: What guesses are worth, or `None` where nothing is guessed.

    Attributes:
        dispatcher, tasks, emit, is_watched: As given.
        models: The session's models by name.
        root: The frame of code that is in no other frame of the session.
        flights: All unfinished calls that are planned.
        is_open: Whether more calls may be made.
        maps: The open maps, for `waiting`.
        ranks: Counts the rows that maps read.
        loop: The event loop of the session.
        thread_id: The thread that it runs in.
        bodies: The operator calls that events name.
        reports: Tells who observes of bodies, tools and requests; `None` where nobody does.
    """

    def __init__(
        self,
        engines: EnginePool,
        dispatcher: Dispatcher,
        answers: Answers | None,
        tasks: Tasks,
        emit: Observer,
        *,
        is_watched: bool,
        planner: Planner | None,
        rules: Sequence[Rule],
        shares: bool,
        executed: ExecutedPlan | None,
        run_id: str,
        stakes: Stakes | None,
    ) -> None:
        self.root = Frame(self, level=("run", run_id))
        self.maps: dict[OpenMap, None] = {}
        self.ranks = count()
        self.is_open = True  # as a field of its own, since every call asks
        self.bodies = Bodies()
        settler = Settler(emit, engines, answers, self.bodies)
        self.flights = Flights(self._plan, settler.settle, settler.report_left, self._closed_before)
        self.models = engines
        self.dispatcher = dispatcher
        self._kept = answers
        self._answers = answers if substitute_known in rules else None  # what rules may put in
        speculation = None
        if stakes is not None and self._answers is not None:
            made_of = engines, dispatcher, self.flights, self._answers, tasks
            learned = LearnedGuesses(_nothing if planner is None else planner.histograms)
            speculation = Speculation(*made_of, stakes, learned, emit)
        self.reports = Reports(emit, engines, self.bodies) if is_watched else None
        common = engines, dispatcher, self.flights, answers
        evaluator = Evaluator(*common, speculation, self.reports, self._number)
        looks_up = self._answers is not None
        self._executor = Executor(*common, tasks, evaluator, looks_up=looks_up, shares=shares)
        self.tasks = tasks
        self.emit = emit
        self.is_watched = is_watched
        self._planner = planner
        self._rules = rules
        self._shares = shares
        self._executed = executed
        self._loop = self.loop = asyncio.get_running_loop()
        self.thread_id = threading.get_ident()
        self._plain: dict[Node, None] = {}  # calls of plain operators that have not ended
        self._tools: dict[RunningTool, None] = {}
        self._numbers = count(1)
        self._num_at_once = 0

    @property
    def state(self) -> Literal["open", "closing", "closed"]:
        """How far the session is."""
        if self.is_open:
            return "open"
        return "closed" if self.tasks.supervisor.done() else "closing"

    # --- made ----------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise unless the session is open and on this event loop."""
        if not self.is_open:
            raise not_open(self.state)
        if _get_running_loop() is not self._loop:
            raise SessionError("this belongs to a session of another event loop")

    def on_created(self, node: Node) -> None:
        """A call was made."""
        if not self.is_open or _get_running_loop() is not self._loop:
            check_on_loop(node.label)
            self.check_open()
        if not node.is_planned:
            self._plain[node] = None
        elif self._planner is not None and node.frame.item is not None:
            self._planner.declare(node)
        if self.is_watched:
            self._number(node)
            if node.is_planned and node.frame.node is None and node.frame.item is None:
                self.emit(CallMade(node.number))
            if self._executed is not None:
                self._executed.add(node)

    def _number(self, node: Node) -> None:
        """Tell a call from the others, where somebody observes."""
        if self.is_watched:
            node.number = self.next_number()

    def next_number(self) -> int:
        """A number that no other call, tool or workflow of the session has."""
        return next(self._numbers)

    def on_awaited(self, node: Node) -> None:
        """A plain operator is about to run in its awaiter's task."""
        if not self.is_open or _get_running_loop() is not self._loop:
            self.check_open()
        self._plain[node] = None
        if self.reports is not None and isinstance(node, OperatorNode):
            self.reports.body_began(node)

    def on_ended(self, node: Node) -> None:
        """A plain operator has ended, or somebody took care of its call without awaiting it."""
        self._plain.pop(node, None)
        outcome = node.outcome
        if self.reports is not None and outcome is not None:
            self.reports.body_ended(node, outcome.error if isinstance(outcome, Failure) else None)

    @contextmanager
    def running_tool(self, frame: Frame, call: ToolCall, *, is_operator: bool) -> Iterator[None]:
        """While a tool runs, in a frame; what waits for an operator is known without it."""
        tool = RunningTool(frame, call, self._loop.time())
        if not is_operator:
            self._tools[tool] = None
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            self._tools.pop(tool, None)
            if self.reports is not None:
                self.reports.tool_ended(tool, failure, self._loop.time())

    def on_effect(self) -> None:
        """Nothing: what runs in the session itself is no guess."""

    def start(self, node: Node) -> None:
        """Demand a call on the session's own behalf; its error, if any, stays with its Ref."""
        self.check_open()
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
            alarm = None if node.timeout_s is None else _alarm(node, node.timeout_s)
            waiter = self.flights.wait(node, item, frame or self.root, alarm)
            if not is_asked and self._answers is not None:
                waiter.flight.num_kept = self._answers.num_kept
            try:
                await (waiter.landed if alarm is None else alarm.wait_for(waiter.landed))
            except BaseException as error:
                await self._leave(waiter, error)
                raise
            finally:
                if alarm is not None:
                    alarm.stop()
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
        alarm = None if node.timeout_s is None else _alarm(node, node.timeout_s)
        waiter = self.flights.wait(node, item, frame or self.root, alarm)
        flight, landed = waiter.flight, waiter.landed
        flight.stream = flight.stream or StreamBuffer()
        try:
            async for piece in flight.stream.read(landed, alarm):
                yield piece
            await (landed if alarm is None else alarm.wait_for(landed))
        except BaseException as error:
            await self._leave(waiter, error)
            raise
        finally:
            if alarm is not None:
                alarm.stop()
        assert node.outcome is not None
        node.outcome.get()  # the error of a call that failed

    def _check_awaiter(self, node: Node, frame: Frame | None) -> Any:
        """Check that the call may be awaited in the frame; returns the item it is wanted for."""
        if not self.is_open or _get_running_loop() is not self._loop:
            self.check_open()
        if frame is not None and frame.is_pure:
            check_may_await(node, frame)
        if isinstance(node, OperatorNode):
            check_not_inside_itself(node, frame)
        return node.frame.item if frame is None or frame.item is None else frame.item

    async def _leave(self, waiter: Waiter, why: BaseException) -> None:
        """Leave a flight, and see its end if it ends by that."""
        ending = self.flights.leave(waiter)
        # who closes a session waits for all; who is closed may await nothing any more
        if self.is_open and not isinstance(why, GeneratorExit):
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

    def when_committed(self, callback: Callable[[BaseException | None], None]) -> None:
        """Call back, with the error if there is one, once all answers kept so far are durable."""
        if self._kept is None:  # then they are as durable as they will be
            callback(None)
        else:
            self._kept.when_committed(callback)

    def close(self) -> None:
        """No more calls may be made; what is under way ends. Idempotent."""
        if not self.is_open:
            return
        self.is_open = False
        withdraw_root(self.root, self.loop)
        self.tasks.begin_to_close()
        for flight in (*self.flights.wanted, *self.flights.planned):
            if flight.task is None:
                self.flights.land(flight, Failure(self._closed(flight.node)))

    @property
    def unawaited(self) -> list[Node]:
        """Calls of plain operators that were made and that nobody has awaited."""
        return [node for node in self._plain if not _is_running(node)]

    def waiting(self) -> str:
        """Which calls wait for what, and for how long, as a tree for a person."""
        if not self.is_open:
            return f"the session is {self.state}"
        return waiting(
            [*self.flights.wanted, *self.flights.planned],
            [node for node in self._plain if _is_running(node)],
            self._tools,
            self.maps,
            self.dispatcher.states,
            self._loop.time(),
        )

    def _closed_before(self, node: Node) -> SessionError | None:
        """The error of a call that the session's end left without an answer, once it has ended."""
        return None if self.is_open else self._closed(node)

    def _closed(self, node: Node) -> SessionError:
        return SessionError(f"the session was closed before {describe(node)} was answered")


def not_open(state: str) -> SessionError:
    """The error of who uses a session that is not open."""
    return SessionError(
        f"this belongs to a session that is not open (it is {state}): use it inside its "
        f"`async with` block, or between open() and close()"
    )


async def _ignore_outcome(node: Node) -> None:
    try:
        await value_of(node)
    except (asyncio.CancelledError, *ENDS_THE_PROGRAM):
        raise
    except BaseException:
        return  # it belongs to the Ref, which keeps it


def _is_running(node: Node) -> bool:
    return isinstance(node, OperatorNode) and node.is_running


def _nothing(_: int) -> Sequence[Histogram]:
    return ()


def _alarm(node: Node, timeout_s: float) -> Alarm:
    return Alarm(timeout_s, partial(describe, node))
