"""`Session`: what runs the calls made inside it.

One supervisor task owns every task of a session. Children never raise into it: errors belong to
the Ref that asked. Leaving the session cancels what is left, waits for its clean-up, and stops
the engines that the session started.
"""

from __future__ import annotations

import asyncio
import contextvars
import uuid
import warnings
from asyncio import _get_running_loop
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Literal, TypeVar

from helium_agents.engines.default import default_engine
from helium_agents.engines.engine import Engine
from helium_agents.errors import CallTimeout, ImpureCall, SessionError
from helium_agents.graph.concurrently import ended
from helium_agents.graph.inline import value_of
from helium_agents.graph.node import LlmNode, Node
from helium_agents.graph.on_loop import check_on_loop
from helium_agents.graph.trace import Frame, current_frame, set_frame
from helium_agents.memo.open import open_store
from helium_agents.memo.run_log import RunLog
from helium_agents.memo.store import Store
from helium_agents.optimizer.rules import RULES, Rule, substitute_known
from helium_agents.runtime.admission import Admission
from helium_agents.runtime.engine_pool import EnginePool
from helium_agents.runtime.executor import Executor
from helium_agents.runtime.map import Item, Map
from helium_agents.runtime.planner import Planner
from helium_agents.runtime.recall import MEMO_MODES, MemoMode, Recall, describe
from helium_agents.runtime.single_flight import Flight, Flights, Waiter
from helium_agents.runtime.streaming import StreamBuffer
from helium_agents.runtime.tasks import OnDone, Tasks
from helium_agents.runtime.token_budget import TokenBudget
from helium_agents.runtime.tracing import Trace
from helium_agents.telemetry.events import Event, Observer
from helium_agents.telemetry.summary import Summary

_HITS_BETWEEN_YIELDS = 64

Row = TypeVar("Row")
T = TypeVar("T")


class Session:
    """Runs the calls that are made inside `async with Session(...)`.

    Args:
        engine: What computes; several by name, for `llm(model=...)`, of which the first is the
            default. Without one, a small embedded model whose text means nothing.
        memo: Where answers are kept: a directory (made if needed), a store, or `None` for
            remembering within this session only.
        memo_mode: "read-write"; "refresh" (compute anew and replace); "replay-only" (a model call
            that is not in the memo is an error, and no engine is started); "off" (remember
            nothing, not even within the session).
        rules: The optimizer's rules; `()` rewrites nothing.
        share: `False` turns off merging, joining and the memo for every call.
        token_budget: Most prompt and output tokens that engines may compute in this session.
        observers: Called with every event, on the event loop.
        run_id: Identifies this run's unseeded draws; a fresh one by default.
        run_log: Keeps the answers of this run's draws, so that the run can be resumed: a session
            with the same log gives every draw the answer that it had. It brings the `run_id`.
        record: Keep every call for `explain()`; memory then grows with the run.

    The plain program, which every exactness test compares with, is the same code under
    `Session(engine, rules=(), share=False, memo=None)`.
    """

    def __init__(
        self,
        engine: Engine | Mapping[str, Engine] | None = None,
        *,
        memo: str | Path | Store | None = None,
        memo_mode: MemoMode = "read-write",
        rules: Sequence[Rule] = RULES,
        share: bool = True,
        token_budget: int | None = None,
        observers: Sequence[Observer] = (),
        run_id: str | None = None,
        run_log: RunLog | None = None,
        record: bool = False,
    ) -> None:
        if memo_mode not in MEMO_MODES:
            raise SessionError(f"memo_mode={memo_mode!r} must be one of {', '.join(MEMO_MODES)}")
        if token_budget is not None and token_budget < 1:
            raise SessionError(f"token_budget={token_budget} must be at least 1")
        if run_log is not None:
            if not share:
                raise SessionError("a run log needs sharing: leave out share=False")
            if substitute_known not in rules:
                raise SessionError("a run log needs the rule substitute_known: add it to rules=")
            if run_id not in (None, run_log.run_id):
                raise SessionError(f"run_id={run_id!r} is not that of the run log: leave it out")
            run_id = run_log.run_id
        self.run_id = run_id or uuid.uuid4().hex
        self._run_log = run_log
        self.summary = Summary()
        self._engines = _by_name(default_engine() if engine is None else engine)
        self._memo = memo
        self._memo_mode: MemoMode = memo_mode
        self._rules = tuple(rules) if share else ()
        self._shares = share
        self._budget = TokenBudget(token_budget)
        self._observers: tuple[Observer, ...] = (self.summary, *observers)
        self._trace = Trace() if record else None
        self._is_open = False
        self._unawaited: dict[Node, None] = {}
        self._tasks = Tasks()
        self._num_at_once = 0

    # --- opening and closing -------------------------------------------------------------------

    async def __aenter__(self) -> Session:
        if current_frame().is_pure:
            raise ImpureCall("a session was opened inside a pure operator: drop pure=True there")
        if self._is_open or hasattr(self, "_loop"):
            raise SessionError("a session is opened once: make a new Session(...)")
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._resources = AsyncExitStack()  # what the supervisor closes after the last task
        self._closing = asyncio.Event()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._supervisor = asyncio.create_task(self._supervise(opened))
        await opened
        try:
            await self._assemble()
        except BaseException:
            await self._stop()
            raise
        self._is_open = True
        self._root = Frame(self, level=("run", self.run_id))
        self._outer_frame = set_frame(self._root)
        self._context.run(set_frame, self._root)
        return self

    async def _assemble(self) -> None:
        self._pool = EnginePool(
            self._engines,
            self._spawn_in_session,
            on_started=lambda: self._admission.engine_started(),
            emit=self._emit,
        )
        recall = self._recall = self._open_recall()
        self._resources.push_async_callback(self._pool.close)
        if recall is not None:
            self._resources.push_async_callback(recall.committed)
        await self._pool.identify()
        engine = self._pool.default
        self._admission = Admission(lambda: engine.capacity, lambda: engine.is_started)
        self._flights = Flights()
        self._executor = Executor(
            engines=self._pool,
            flights=self._flights,
            recall=recall,
            shares=self._shares,
            budget=self._budget,
            touch=self._touch,
            finish=self._tasks.finish,
            emit=self._emit,
        )
        self._planner = self._executor.planner = Planner(
            self._rules,
            shares=self._shares,
            flights=self._flights,
            look_up=(lambda node: None) if recall is None else recall.look_up,
            launch=self._launch,
            derive=self._derive,
            settle=self._executor.settle_known,
            fail=self._executor.fail,
            emit=self._emit,
        )

    def _open_recall(self) -> Recall | None:
        store = None
        if self._shares and self._memo_mode != "off":
            store = open_store(self._memo, read_only=self._memo_mode == "replay-only")
            if store is not self._memo:
                self._resources.callback(store.close)
        if store is None and self._run_log is None:
            return None
        draws = None if self._run_log is None else self._run_log.store
        keeps_facts = self._memo is not None  # else the store goes with the session
        return Recall(self._pool, store, self._memo_mode, draws, keeps_facts=keeps_facts)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        set_frame(self._outer_frame)
        for flight in list(self._flights.pending):
            self._executor.fail(flight, self._closed_before(flight.node))
        await self._stop()
        if error is None:
            self._warn_of_unawaited()

    async def _supervise(self, opened: asyncio.Future[None]) -> None:
        async with self._resources:
            opened.set_result(None)
            try:
                await self._closing.wait()
            finally:
                await self._tasks.close()

    async def _stop(self) -> None:
        self._closing.set()
        await ended([self._supervisor])
        if not self._supervisor.cancelled():
            self._supervisor.result()

    def _warn_of_unawaited(self) -> None:
        for node in self._unawaited:
            if node.frame.has_failed:
                continue  # what made the call did not come to awaiting it
            assert node.place is not None
            code, instruction = node.place
            filename, line = code.co_filename, _line_of(code, instruction)
            warnings.warn_explicit(
                f"{node.label}(...) was called here but never awaited, so it did not run",
                RuntimeWarning,
                filename,
                line,
            )

    # --- what a user asks for ------------------------------------------------------------------

    def map(
        self,
        fn: Callable[[Row], Awaitable[T]],
        rows: Iterable[Row] | AsyncIterable[Row],
        *,
        ordered: bool = True,
        on_error: Literal["raise", "collect"] = "raise",
        read_ahead: int = 4096,
        done: Container[int] = (),
    ) -> Map[T]:
        """Apply an operator to every row, streamed; iterate the result with `async for`.

        Items are opened as the engine's KV cache has room for their working sets. A result is
        yielded once it is durable in the memo. Memory is bounded by `read_ahead`, not by the
        number of rows. Breaking out of the loop cancels what is open.

        Args:
            fn: An operator, or any async function of a row.
            rows: Any iterable or async iterable.
            ordered: Yield in the order of the rows; otherwise as they finish.
            on_error: "raise" the first failure (in the order of the rows where `ordered`), with
                the row in a note; or "collect": yield an `ItemError` in the failed item's place.
            read_ahead: Most rows that are open or finished but not yet taken.
            done: Indices of rows that an earlier part of this run has answered. They are read, so
                that later rows keep their identity, but neither run nor yielded.

        Raises:
            SessionError: The session is not open.
            ValueError: `on_error` or `read_ahead` is out of range.
        """
        self.check_open()
        return Map(
            self,
            fn,
            rows,
            ordered=ordered,
            on_error=on_error,
            read_ahead=read_ahead,
            done=done,
        )

    def explain(self, *, optimized: bool = False) -> str:
        """The logical plan of all calls so far as text, or what the rules make of it.

        Raises:
            SessionError: The session was not made with `record=True`.
        """
        if self._trace is None:
            raise SessionError("explain() needs a session made with Session(record=True)")
        return self._trace.explain(self._rules if optimized else ())

    # --- what the graph asks for (graph.trace.Runner) ------------------------------------------

    def model_key(self, model: str | None) -> bytes:
        """Identity of a model, as part of keys."""
        return self._pool.identity(model)

    def check_open(self) -> None:
        """Raise unless the session is open and on this event loop."""
        if not self._is_open:
            raise SessionError(
                "this belongs to a session that is not open: use it inside its `async with` block"
            )
        if _get_running_loop() is not self._loop:
            raise SessionError("this belongs to a session of another event loop")

    def on_created(self, node: Node) -> None:
        """A call was made."""
        if not self._is_open or _get_running_loop() is not self._loop:
            check_on_loop(node.label)
            self.check_open()
        if not node.is_planned:
            self._unawaited[node] = None
        if self._trace is not None:
            self._trace.add(node)

    def on_awaited(self, node: Node) -> None:
        """A plain operator is about to run in its awaiter's task."""
        if not self._is_open or _get_running_loop() is not self._loop:
            self.check_open()
        self._unawaited.pop(node, None)

    def on_taken(self, node: Node) -> None:
        """Somebody took care of a plain operator's call."""
        self._unawaited.pop(node, None)

    async def wait(self, node: Node) -> Any:
        """The value of a pure or model call."""
        self.check_open()
        found = self._planner.known_at_once(node)
        if found is not None:
            self._executor.settle_known(Flight(node, self._loop.time()), found)
            self._num_at_once += 1
            if self._num_at_once % _HITS_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)  # or a loop over remembered calls could not be interrupted
            assert node.outcome is not None
            return node.outcome.get()
        flight = self._planner.demand(node)
        if node.timeout_s is not None:
            await self._land_within(flight, node, node.timeout_s)
        else:
            waiter = flight.add_waiter()
            try:
                await waiter.future
            except BaseException as error:
                await self._desert(waiter, error)
                raise
        if node.outcome is None:
            raise self._closed_before(node)
        return node.outcome.get()

    def _closed_before(self, node: Node) -> SessionError:
        return SessionError(f"the session was closed before {describe(node)} was answered")

    async def _land(self, waiter: Waiter) -> None:
        """Wait for the flight's outcome, or leave it."""
        try:
            await waiter.future
        except BaseException as error:
            await self._desert(waiter, error)
            raise

    async def _desert(self, waiter: Waiter, why: BaseException) -> None:
        """Leave a flight that is not settled, and see its end if it ends by that."""
        if self._is_open and not isinstance(why, GeneratorExit):
            await self._flights.leave(waiter)
        else:  # who closes a session waits for all; who is closed may await nothing any more
            self._flights.give_up(waiter)

    async def _land_within(self, flight: Flight, node: Node, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(None) as scope:
                await self._land(
                    flight.add_waiter(lambda: scope.reschedule(self._loop.time() + timeout_s))
                )
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise CallTimeout(
                f"{describe(node)} did not finish within its timeout of {timeout_s} s"
            ) from error

    def start(self, node: Node) -> None:
        """Demand a node on the session's own behalf; its error, if any, stays with its Ref."""
        self.check_open()
        if node.is_planned:
            self._planner.demand(node).add_waiter()  # one who never leaves
        else:
            self.on_taken(node)
            self._spawn_in_session(_ignore_outcome(node))

    async def stream(self, node: Node) -> AsyncIterator[str]:
        """The text of a model call, piece by piece."""
        assert isinstance(node, LlmNode)
        self.check_open()
        if node.outcome is not None:
            yield node.outcome.get().text
            return
        flight = self._planner.demand(node)
        flight.stream = flight.stream or StreamBuffer()
        waiter = flight.add_waiter()
        try:
            async for piece in flight.stream.read():
                yield piece
        except BaseException as error:
            await self._desert(waiter, error)
            raise
        await self._land(waiter)
        if node.outcome is None:
            raise self._closed_before(node)
        node.outcome.get()  # the error of a call that failed

    # --- what maps ask for ---------------------------------------------------------------------

    @property
    def admission(self) -> Admission:
        """Decides when the next item opens."""
        return self._admission

    @property
    def is_watched(self) -> bool:
        """Whether anybody but the summary sees events."""
        return len(self._observers) > 1

    def spawn(
        self,
        work: Coroutine[Any, Any, None],
        context: contextvars.Context,
        on_done: OnDone | None = None,
    ) -> asyncio.Task[None]:
        """Start a task that the session owns; see `Tasks.spawn`."""
        return self._tasks.spawn(work, context, on_done)

    def finish(self, task: asyncio.Task[None]) -> None:
        """A task that was spawned is about to end; see `Tasks.finish`."""
        self._tasks.finish(task)

    def emit(self, event: Event) -> None:
        """Hand an event to the observers."""
        self._emit(event)

    def when_committed(self, callback: Callable[[BaseException | None], None]) -> None:
        """Call back once everything remembered so far is durable, with the error if it cannot."""
        if self._recall is not None:
            self._recall.when_committed(callback)
        else:
            callback(None)

    # --- inside --------------------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer(event)
            except Exception as error:  # who watches must not break what is watched
                message = f"an observer of the session failed on {type(event).__name__}"
                self._loop.call_exception_handler({"message": message, "exception": error})

    def _spawn_in_session(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self.spawn(work, self._context.copy())

    def _launch(self, flight: Flight) -> None:
        self._run_flight(flight, self._executor.compute(flight))

    def _derive(self, flight: Flight, longer: Flight) -> None:
        self._run_flight(flight, self._executor.derive(flight, longer))

    def _run_flight(self, flight: Flight, work: Coroutine[Any, Any, None]) -> None:
        flight.task = self._tasks.spawn(
            work, self._context.copy(), partial(self._executor.end, flight)
        )

    def _touch(self, item: Any, token_ids: Sequence[int]) -> bool:
        if not isinstance(item, Item):
            return False
        return self._admission.touch(item.admitted.working_set, token_ids)


def _line_of(code: CodeType, instruction: int) -> int:
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno


async def _ignore_outcome(node: Node) -> None:
    with suppress(Exception):  # it belongs to the Ref, which keeps it
        await value_of(node)


def _by_name(engine: Engine | Mapping[str, Engine]) -> Mapping[str, Engine]:
    if isinstance(engine, Mapping):
        if not engine:
            raise SessionError("engine={} names no engine: leave it out for the embedded model")
        return engine
    return {engine.name: engine}
