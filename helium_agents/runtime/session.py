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
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Container,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, contextmanager
from types import CodeType, TracebackType
from typing import Any, Literal, TypeVar, Unpack, overload

from helium_agents.diagnose.recorder import Recorder
from helium_agents.engines.default import EngineLike, engines_by_name
from helium_agents.errors import ImpureCall, ItemError, SessionError
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM, ended
from helium_agents.graph.inline import awaitable
from helium_agents.graph.plan import LogicalPlan
from helium_agents.graph.trace import (
    Frame,
    check_effect,
    entered,
    entered_frame,
    offer_root,
    set_frame,
    withdraw_root,
)
from helium_agents.memo.open import open_store
from helium_agents.memo.run_log import RunLog
from helium_agents.memo.store import Store
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.rules import substitute_known
from helium_agents.optimizer.schedule import FewOpen, Schedule
from helium_agents.optimizer.speculation_budget import Budget
from helium_agents.runtime.answers import Answers
from helium_agents.runtime.calls import Calls, not_open
from helium_agents.runtime.dispatcher import Dispatcher
from helium_agents.runtime.engine_pool import EnginePool
from helium_agents.runtime.executed_plan import ExecutedPlan
from helium_agents.runtime.learners import Learners
from helium_agents.runtime.map import Map
from helium_agents.runtime.options import (
    SessionOptions,
    all_options,
    check_functions,
    schedule_of,
    trace_of,
)
from helium_agents.runtime.planner import Planner
from helium_agents.runtime.stakes import Stakes
from helium_agents.runtime.tasks import Tasks
from helium_agents.telemetry.events import Event, Observer, WorkflowBegan, WorkflowEnded
from helium_agents.telemetry.otel.opening import open_spans
from helium_agents.telemetry.otel.settings import as_otlp
from helium_agents.telemetry.summary import Summary
from helium_agents.trace.writer import TraceWriter

_HITS_BETWEEN_YIELDS = 64

Row = TypeVar("Row")
T = TypeVar("T")


class Session:
    """Runs the calls that are made inside `async with Session(...)`.

    Args:
        engine: What computes: an engine, or a model directory or name for `VLLM(...)`; several by
            name, for `llm(model=...)`, of which the first is the default. Without one, the
            embedded SmolLM2-135M-Instruct. An engine that was started before
            (`async with VLLM(...) as engine`) goes on after the session, and several sessions may
            use it; one that was not is stopped with the last session that uses it.
        observers: Called with every event, on the event loop.
        run_id: Identifies this run's unseeded draws; a fresh one by default.
        run_log: Keeps the answers of this run's draws, so that the run can be resumed: a session
            with the same log gives every draw the answer that it had. It brings the `run_id`.
        options: What `SessionOptions` lists: `memo=`, `token_budget=`, ...

    Raises:
        SessionError: An argument is of the wrong type or out of range.

    A session serves every task of its event loop. `async with` opens it for a block, in which it
    hides sessions around it; `await session.open()` and `close()` open it for as long as you like,
    for a notebook or a web server. Code of a task that knows of no session is in the one that is
    open; where several are, `await session.run(fn, ...)` says which.

    The plain program, which every exactness test compares with, is the same code under
    `Session(engine, rules=(), share=False, memo=None)`.
    """

    def __init__(
        self,
        engine: EngineLike | Mapping[str, EngineLike] | None = None,
        *,
        observers: Sequence[Observer] = (),
        run_id: str | None = None,
        run_log: RunLog | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        self._options = all_options(options)
        check_functions("observers", observers)
        if not (run_id is None or isinstance(run_id, str)):
            raise SessionError(f"run_id={run_id!r} must be text")
        if run_log is not None:
            run_id = _run_of(run_log, run_id, self._options)
        self.run_id = run_id or uuid.uuid4().hex
        self._run_log = run_log
        self.summary = Summary()
        self._engines = engines_by_name(engine)
        self._schedule = schedule_of(self._options)
        self._observers: tuple[Observer, ...] = (self.summary, *observers)
        self._executed = ExecutedPlan() if self._options["record"] else None
        if self._executed is not None:
            self._observers += (self._executed,)
        self._trace = trace_of(self._options)
        self._is_watched = False  # by more than the summary
        self._emit: Observer = self.summary
        self._calls: Calls | None = None  # once it is open
        self._early_state: Literal["new", "opening", "closed"] = "new"
        self._tasks = Tasks()

    # --- opening and closing -------------------------------------------------------------------

    @property
    def _state(self) -> Literal["new", "opening", "open", "closing", "closed"]:
        return self._early_state if self._calls is None else self._calls.state

    async def __aenter__(self) -> Session:
        await self.open()
        self._outer_frame = set_frame(self._opened().root)
        return self

    async def open(self) -> Session:
        """Open the session for every task of this event loop, until `close`; returns itself.

        Raises:
            SessionError: It is open, or was.
            MemoError: The memo cannot be opened.
            EngineStartError: The model cannot be found.
            TraceError: The trace cannot be begun.
        """
        frame = entered_frame()
        if frame is not None and frame.is_pure:
            raise ImpureCall("a session was opened inside a pure operator: drop pure=True there")
        if self._state != "new":
            raise SessionError(
                f"this session is {self._state}, and a session is opened once: make a new "
                f"Session(...)"
            )
        self._early_state = "opening"
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._resources = AsyncExitStack()  # what the supervisor closes after the last task
        self._closing = asyncio.Event()
        self._supervisor = self._loop.create_task(self._supervise())
        try:
            calls = await self._assemble()
        except BaseException:
            self._early_state = "closed"
            await self._stop()
            raise
        self._context.run(set_frame, calls.root)
        self._calls = calls
        offer_root(calls.root, self._loop)
        return self

    async def _assemble(self) -> Calls:
        options = self._options
        if self._trace is not None:  # first, so that it is closed last
            about = {"run_id": self.run_id, "schedule": _name_of(self._schedule)}
            writer = TraceWriter(self._trace, about)
            self._resources.push_async_callback(writer.close)
            self._observers += (writer,)
        spans = open_spans(as_otlp(options["otlp"]), self.run_id, self.summary)
        if spans is not None:
            self._resources.push_async_callback(spans.close)
            self._observers += (spans,)
        self._is_watched = len(self._observers) > 1
        if self._is_watched:
            self._emit = self._tell_all
        engines = EnginePool(self._engines, self._spawn_in_session, self._emit)
        store = self._open_store()
        answers = self._open_answers(engines, store)
        self._resources.push_async_callback(engines.close)
        if answers is not None:
            self._resources.push_async_callback(answers.committed)
        await engines.open()
        run_store = None if self._run_log is None else self._run_log.store
        if answers is not None and options["memo"] not in (None, run_store):
            engines.warn_of_short_memory()
        planner = None
        if isinstance(self._schedule, Adaptive):
            kept = None if options["memo_mode"] == "replay-only" else store
            is_resumed = self._run_log is not None and self._run_log.is_resumed
            learners = Learners(kept, engines.identity, engines.names, is_resumed=is_resumed)
            planner = Planner(self._emit, learners)
            self._resources.callback(planner.close)
        dispatcher = Dispatcher(engines, self._schedule, options["token_budget"], planner)
        return Calls(
            engines,
            dispatcher,
            answers,
            self._tasks,
            self._context,
            self._emit,
            is_watched=self._is_watched,
            planner=planner,
            rules=tuple(options["rules"]) if options["share"] else (),
            shares=options["share"],
            executed=self._executed,
            run_id=self.run_id,
            stakes=self._stakes(engines, dispatcher),
        )

    def _stakes(self, engines: EnginePool, dispatcher: Dispatcher) -> Stakes | None:
        """What guesses are worth; `None` where there are none."""
        options = self._options
        speculate = options["speculate"]
        is_remembered = options["memo_mode"] in ("read-write", "refresh") and options["share"]
        if speculate == "off" or not is_remembered or options["token_budget"] is not None:
            return None
        budget = speculate if isinstance(speculate, Budget) else Budget()
        return Stakes(budget, engines, dispatcher, is_cautious=speculate == "auto")

    def _open_store(self) -> Store | None:
        memo, mode = self._options["memo"], self._options["memo_mode"]
        if not self._options["share"] or mode == "off":
            return None
        store = open_store(memo, read_only=mode == "replay-only")
        if store is not memo:
            self._resources.callback(store.close)
        return store

    def _open_answers(self, engines: EnginePool, store: Store | None) -> Answers | None:
        memo, mode = self._options["memo"], self._options["memo_mode"]
        if store is None and self._run_log is None:
            return None
        draws = None if self._run_log is None else self._run_log.store
        record = Recorder(engines).record
        return Answers(
            engines,
            store,
            mode,
            self.run_id,
            draws,
            emit=self._emit,
            provenance=None if memo is None else record,  # the store goes with the session
            # a run that is resumed goes on with what it had
            session_store=store if store is None or memo is None else draws or open_store(None),
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        set_frame(self._outer_frame)
        self._begin_to_close()
        await self._stop()
        if error is None:
            self._warn_of_unawaited()

    async def close(self) -> None:
        """Cancel what is left, wait for its clean-up, and stop the engines that sessions started.

        Whoever still waits for a call gets a `SessionError`. Calls of plain operators that nobody
        awaited are warned of, with the place where they were made. Idempotent.

        Raises:
            SessionError: It is called inside one of the session's own calls, which would wait for
                itself.
        """
        frame = entered_frame()
        calls = self._calls
        is_ours = frame is not None and calls is not None and frame.runner is calls
        is_inside = is_ours and frame is not None and (frame.node or frame.item)
        if is_inside or asyncio.current_task() in self._tasks:
            raise SessionError(
                "close() was called inside a call or a row of this session, for whose end it "
                "waits: close the session outside of them"
            )
        if self._state == "opening":
            raise SessionError("this session is being opened: await open() before close()")
        self._begin_to_close()
        if self._state == "closing":
            # Who is cancelled goes at once, and the supervisor goes on: a call that is being ended
            # may wait for just this task.
            await asyncio.shield(self._supervisor)
            self._warn_of_unawaited()

    def _begin_to_close(self) -> None:
        if self._state == "new":
            self._early_state = "closed"
        if self._state != "open":
            return
        calls = self._opened()
        withdraw_root(calls.root, self._loop)
        calls.close()
        self._closing.set()

    async def _supervise(self) -> None:
        try:
            async with self._resources:
                try:
                    await self._closing.wait()
                finally:
                    await self._tasks.close()
        finally:
            if self._calls is not None:
                self._calls.state = "closed"

    async def _stop(self) -> None:
        self._closing.set()
        await ended([self._supervisor])
        if not self._supervisor.cancelled():
            self._supervisor.result()

    def _warn_of_unawaited(self) -> None:
        for node in self._opened().unawaited:
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

    def _opened(self) -> Calls:
        """The calls of the session, which was opened.

        Raises:
            SessionError: It was not, or not yet.
        """
        if self._calls is None:
            raise not_open(self._early_state)
        return self._calls

    @property
    def root(self) -> Frame:
        """The frame of code that is in no other frame of the session.

        Raises:
            SessionError: The session is not open.
        """
        return self._opened().root

    # --- what a user asks for ------------------------------------------------------------------

    async def run(self, fn: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
        """Call an operator, or any async function, in this session, from any task of its loop.

        Raises:
            SessionError: The session is not open, or is one of another event loop.
        """
        calls = self._opened()
        calls.check_open()
        frame = entered_frame()
        if frame is not None and frame.runner is calls:
            return await awaitable(fn, *args, **kwargs)
        if frame is not None and frame.is_pure:
            raise ImpureCall("session.run(...) was called inside a pure operator: drop pure=True")
        # Unseeded draws of one call of `run` are not those of another.
        ordinal = calls.root.next_ordinal("root", None)
        frame = Frame(calls, calls.root, ("root", ordinal) if ordinal else ("root",))
        with self._as_workflow(fn), entered(frame):
            return await awaitable(fn, *args, **kwargs)

    @contextmanager
    def _as_workflow(self, fn: Callable[..., Any]) -> Iterator[None]:
        if not self._is_watched:
            yield
            return
        number, error = self._opened().next_number(), None
        self._emit(WorkflowBegan(number, getattr(fn, "__name__", "a function"), is_run=True))
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._emit(WorkflowEnded(number, error))

    @overload
    def map(
        self,
        fn: Callable[[Row], Awaitable[T]],
        rows: Iterable[Row] | AsyncIterable[Row],
        *,
        ordered: bool = ...,
        on_error: Literal["raise"] = ...,
        read_ahead: int = ...,
        done: Container[int] = ...,
    ) -> Map[T]: ...
    @overload
    def map(
        self,
        fn: Callable[[Row], Awaitable[T]],
        rows: Iterable[Row] | AsyncIterable[Row],
        *,
        ordered: bool = ...,
        on_error: Literal["raise", "collect"],
        read_ahead: int = ...,
        done: Container[int] = ...,
    ) -> Map[T | ItemError]: ...
    def map(
        self,
        fn: Callable[[Row], Awaitable[T]],
        rows: Iterable[Row] | AsyncIterable[Row],
        *,
        ordered: bool = True,
        on_error: Literal["raise", "collect"] = "raise",
        read_ahead: int = 4096,
        done: Container[int] = (),
    ) -> Map[Any]:
        """Apply an operator to every row, streamed; iterate the result with `async for`.

        Items are opened as they are read, up to a thousand; what they ask waits for its turn at the
        engine. A result is yielded once it is durable in the memo. Memory is bounded by
        `read_ahead`, not by the number of rows. Breaking out of the loop cancels what is open.

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
        calls = self._opened()
        calls.check_open()
        check_effect(entered_frame())
        return Map(
            calls,
            fn,
            rows,
            ordered=ordered,
            on_error=on_error,
            read_ahead=read_ahead,
            done=done,
        )

    def explain(self, *, optimized: bool = False) -> str:
        """All calls so far as a plan, as text.

        Args:
            optimized: Whether it tells how each call came to its answer: computed, known, or taken
                from another. Otherwise all are shown as the program asked for them.

        Raises:
            SessionError: The session was not made with `record=True`.
        """
        return self.plan(optimized=optimized).explain()

    def plan(self, *, optimized: bool = False) -> LogicalPlan:
        """All calls so far as a plan; see `explain`.

        Raises:
            SessionError: The session was not made with `record=True`.
        """
        if self._executed is None:
            raise SessionError("explain() needs a session made with Session(record=True)")
        return self._executed.plan(as_executed=optimized)

    def waiting(self) -> str:
        """Which calls wait for what, and for how long, as a tree for a person."""
        return self._calls.waiting() if self._calls else f"the session is {self._state}"

    # --- inside --------------------------------------------------------------------------------

    def _tell_all(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer(event)
            except ENDS_THE_PROGRAM as error:
                self._loop.call_soon(_raise, error)  # when the event is everywhere
            except BaseException as error:  # who watches must not break what is watched
                message = f"an observer of the session failed on {type(event).__name__}"
                self._loop.call_exception_handler({"message": message, "exception": error})

    def _spawn_in_session(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._tasks.spawn(work, self._context.copy())


def _line_of(code: CodeType, instruction: int) -> int:
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno


def _name_of(schedule: Schedule) -> str:
    name = type(schedule).__name__
    return f"{name}({schedule.policy.max_open})" if isinstance(schedule, FewOpen) else name


def _raise(error: BaseException) -> None:
    raise error


def _run_of(run_log: Any, run_id: str | None, options: SessionOptions) -> str:
    """The id of the run that a log is of.

    Raises:
        SessionError: It is no log, or something else that was given does not go with one.
    """
    if not (hasattr(run_log, "run_id") and hasattr(run_log, "store")):
        raise SessionError(f"run_log={run_log!r} must be a RunLog(...)")
    if not options["share"]:
        raise SessionError("a run log needs sharing: leave out share=False")
    if substitute_known not in options["rules"]:
        raise SessionError("a run log needs the rule substitute_known: add it to rules=")
    if run_id not in (None, run_log.run_id):
        raise SessionError(f"run_id={run_id!r} is not that of the run log: leave it out")
    return str(run_log.run_id)
