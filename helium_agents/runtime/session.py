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
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Literal, TypeVar, overload

from helium_agents.diagnose.recorder import Recorder
from helium_agents.engines.default import EngineLike, engines_by_name
from helium_agents.errors import ImpureCall, ItemError, SessionError
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM, ended
from helium_agents.graph.cycles import check_not_inside_itself
from helium_agents.graph.inline import awaitable, check_may_await, value_of
from helium_agents.graph.naming import describe
from helium_agents.graph.node import LlmNode, Node, OperatorNode
from helium_agents.graph.on_loop import check_on_loop
from helium_agents.graph.outcome import Failure
from helium_agents.graph.trace import (
    Frame,
    entered,
    entered_frame,
    offer_root,
    set_frame,
    withdraw_root,
)
from helium_agents.memo.open import open_store
from helium_agents.memo.run_log import RunLog
from helium_agents.memo.store import Store
from helium_agents.optimizer.rules import RULES, Rule, substitute_known
from helium_agents.optimizer.schedule import EverythingOpen, FewOpen
from helium_agents.runtime.alarm import Alarm
from helium_agents.runtime.answers import MEMO_MODES, Answers, Found, MemoMode
from helium_agents.runtime.demand import Demand
from helium_agents.runtime.dispatcher import Dispatcher
from helium_agents.runtime.engine_pool import EnginePool
from helium_agents.runtime.executor import Executor
from helium_agents.runtime.flights import Flight, Flights, Waiter
from helium_agents.runtime.map import Map, Maps
from helium_agents.runtime.settle import Settler
from helium_agents.runtime.streaming import StreamBuffer
from helium_agents.runtime.tasks import Tasks
from helium_agents.runtime.tracing import Trace
from helium_agents.runtime.waiting import waiting
from helium_agents.telemetry.events import Event, Observer
from helium_agents.telemetry.summary import Summary

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
        memo: Where answers are kept: a directory (made if needed), a store, or `None` for
            remembering within this session only.
        memo_mode: "read-write"; "refresh" (compute anew and replace); "replay-only" (a model call
            that is not in the memo is an error, and no engine is started); "off" (remember
            nothing, not even within the session).
        rules: The optimizer's rules; `()` rewrites nothing.
        share: `False` turns off merging, joining and the memo for every call.
        token_budget: Most prompt and output tokens that engines may compute in this session.
        max_open: Most items of top-level maps whose calls may be on an engine at once; by default
            all. Fewer share the KV cache better where the prefixes of all do not fit into it.
        observers: Called with every event, on the event loop.
        run_id: Identifies this run's unseeded draws; a fresh one by default.
        run_log: Keeps the answers of this run's draws, so that the run can be resumed: a session
            with the same log gives every draw the answer that it had. It brings the `run_id`.
        record: Keep every call for `explain()`; memory then grows with the run.

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
        memo: str | Path | Store | None = None,
        memo_mode: MemoMode = "read-write",
        rules: Sequence[Rule] = RULES,
        share: bool = True,
        token_budget: int | None = None,
        max_open: int | None = None,
        observers: Sequence[Observer] = (),
        run_id: str | None = None,
        run_log: RunLog | None = None,
        record: bool = False,
    ) -> None:
        _check_arguments(memo, memo_mode, rules, share, token_budget, observers, run_id)
        if run_log is not None:
            if not (hasattr(run_log, "run_id") and hasattr(run_log, "store")):
                raise SessionError(f"run_log={run_log!r} must be a RunLog(...)")
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
        self._engines = engines_by_name(engine)
        self._memo = memo
        self._memo_mode: MemoMode = memo_mode
        self._rules = tuple(rules) if share else ()
        self._shares = share
        self._token_budget = token_budget
        self._schedule = EverythingOpen() if max_open is None else FewOpen(max_open)
        self._observers: tuple[Observer, ...] = (self.summary, *observers)
        self._trace = Trace() if record else None
        self._is_watched = record or len(self._observers) > 1  # by more than the summary
        self._numbers = count(1)
        self._state: Literal["new", "opening", "open", "closing", "closed"] = "new"
        self._is_open = False  # as a field of its own, since every call asks
        self._plain: dict[Node, None] = {}  # calls of plain operators that have not ended
        self._tasks = Tasks()
        self._num_at_once = 0

    # --- opening and closing -------------------------------------------------------------------

    async def __aenter__(self) -> Session:
        await self.open()
        self._outer_frame = set_frame(self._root)
        return self

    async def open(self) -> Session:
        """Open the session for every task of this event loop, until `close`; returns itself.

        Raises:
            SessionError: It is open, or was.
            MemoError: The memo cannot be opened.
            EngineStartError: The model cannot be found.
        """
        frame = entered_frame()
        if frame is not None and frame.is_pure:
            raise ImpureCall("a session was opened inside a pure operator: drop pure=True there")
        if self._state != "new":
            raise SessionError(
                f"this session is {self._state}, and a session is opened once: make a new "
                f"Session(...)"
            )
        self._state = "opening"
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._resources = AsyncExitStack()  # what the supervisor closes after the last task
        self._closing = asyncio.Event()
        self._root = Frame(self, level=("run", self.run_id))
        self._context.run(set_frame, self._root)
        self._supervisor = self._loop.create_task(self._supervise())
        try:
            await self._assemble()
        except BaseException:
            self._state = "closed"
            await self._stop()
            raise
        self._state, self._is_open = "open", True
        offer_root(self._root, self._loop)
        return self

    async def _assemble(self) -> None:
        self._pool = EnginePool(
            self._engines,
            self._spawn_in_session,
            emit=self._emit,
        )
        answers = self._answers = self._open_answers()
        self._resources.push_async_callback(self._pool.close)
        if answers is not None:
            self._resources.push_async_callback(answers.committed)
        await self._pool.identify()
        self._pool.open()
        self._dispatcher = Dispatcher(self._pool, self._schedule, self._token_budget)
        settler = Settler(self._emit, _none_below if answers is None else answers.calls_below)
        self._flights = Flights(
            self._tasks,
            self._context,
            settler.settle,
            settler.report_left,
            self._closed_before,
        )
        look_up: Callable[[Node], Found | None] = _find_nothing
        if answers is not None and substitute_known in self._rules:
            look_up = answers.look_up
        self._executor = Executor(
            engines=self._pool,
            flights=self._flights,
            answers=answers,
            look_up=look_up,
            shares=self._shares,
            dispatcher=self._dispatcher,
            ask=lambda node, item: self._demand.ask(node, item),
        )
        self._demand = Demand(
            self._rules,
            shares=self._shares,
            flights=self._flights,
            look_up=look_up,
            executor=self._executor,
            emit=self._emit if self._is_watched else None,
        )
        self._maps = Maps(
            self._root,
            self._tasks,
            self._flights,
            self._dispatcher,
            self._emit,
            _call_back if answers is None else answers.when_committed,
            is_watched=self._is_watched,
        )

    def _open_answers(self) -> Answers | None:
        store = None
        if self._shares and self._memo_mode != "off":
            store = open_store(self._memo, read_only=self._memo_mode == "replay-only")
            if store is not self._memo:
                self._resources.callback(store.close)
        if store is None and self._run_log is None:
            return None
        draws = None if self._run_log is None else self._run_log.store
        record = Recorder(self._pool.about).record
        return Answers(
            self._pool,
            store,
            self._memo_mode,
            self.run_id,
            draws,
            emit=self._emit,
            provenance=None if self._memo is None else record,  # the store goes with the session
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
        is_inside = frame is not None and frame.runner is self and (frame.node or frame.item)
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
            self._state = "closed"
        if self._state != "open":
            return
        self._state, self._is_open = "closing", False
        self._maps.is_closed = True
        withdraw_root(self._root, self._loop)
        for flight in (*self._flights.wanted, *self._flights.planned):
            if flight.task is None:
                self._flights.land(flight, Failure(self._closed(flight.node)))
        self._closing.set()

    async def _supervise(self) -> None:
        try:
            async with self._resources:
                try:
                    await self._closing.wait()
                finally:
                    await self._tasks.close()
        finally:
            self._state = "closed"

    async def _stop(self) -> None:
        self._closing.set()
        await ended([self._supervisor])
        if not self._supervisor.cancelled():
            self._supervisor.result()

    def _warn_of_unawaited(self) -> None:
        for node in self._plain:
            if _is_running(node) or node.frame.has_failed:
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

    async def run(self, fn: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
        """Call an operator, or any async function, in this session, from any task of its loop.

        Raises:
            SessionError: The session is not open, or is one of another event loop.
        """
        self.check_open()
        frame = entered_frame()
        if frame is not None and frame.runner is self:
            return await awaitable(fn, *args, **kwargs)
        if frame is not None and frame.is_pure:
            raise ImpureCall("session.run(...) was called inside a pure operator: drop pure=True")
        with entered(Frame(self, self._root, ("root",))):
            return await awaitable(fn, *args, **kwargs)

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
        self.check_open()
        return Map(
            self._maps,
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

    def waiting(self) -> str:
        """Which calls wait for what, and for how long, as a tree for a person."""
        if not self._is_open:
            return f"the session is {self._state}"
        return waiting(
            [*self._flights.wanted, *self._flights.planned],
            [node for node in self._plain if _is_running(node)],
            self._maps.open,
            self._dispatcher.states,
            self._loop.time(),
        )

    # --- what the graph asks for (graph.trace.Runner) ------------------------------------------

    def model_key(self, model: str | None) -> bytes:
        """Identity of a model, as part of keys."""
        return self._pool.identity(model)

    def check_open(self) -> None:
        """Raise unless the session is open and on this event loop."""
        if not self._is_open:
            raise SessionError(
                f"this belongs to a session that is not open (it is {self._state}): use it inside "
                f"its `async with` block, or between open() and close()"
            )
        if _get_running_loop() is not self._loop:
            raise SessionError("this belongs to a session of another event loop")

    def on_created(self, node: Node) -> None:
        """A call was made."""
        if not self._is_open or _get_running_loop() is not self._loop:
            check_on_loop(node.label)
            self.check_open()
        if not node.is_planned:
            self._plain[node] = None
        if self._is_watched:
            node.number = next(self._numbers)
            if self._trace is not None:
                self._trace.add(node)

    def on_awaited(self, node: Node) -> None:
        """A plain operator is about to run in its awaiter's task."""
        if not self._is_open or _get_running_loop() is not self._loop:
            self.check_open()
        self._plain[node] = None

    def on_ended(self, node: Node) -> None:
        """A plain operator has ended, or somebody took care of its call without awaiting it."""
        self._plain.pop(node, None)

    async def wait(self, node: Node) -> Any:
        """The value of a pure or model call."""
        self.check_open()
        frame = entered_frame()
        item = self._check_awaiter(node, frame)
        if node.outcome is not None:  # it has come since the coroutine was made
            return node.outcome.get()
        found = self._demand.known_at_once(node, item)
        if found is not None:
            self._executor.settle_known(Flight(node, self._loop.time(), item), found)
            self._num_at_once += 1
            if self._num_at_once % _HITS_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)  # or a loop over remembered calls could not be interrupted
            assert node.outcome is not None
            return node.outcome.get()
        await self._landed(self._demand.ask(node, item), frame, node)
        assert node.outcome is not None
        return node.outcome.get()

    def _check_awaiter(self, node: Node, frame: Frame | None) -> Any:
        """Check that the call may be awaited in the frame; returns the item it is wanted for."""
        check_may_await(node, frame)
        if isinstance(node, OperatorNode):
            check_not_inside_itself(node, frame)
        return node.frame.item if frame is None or frame.item is None else frame.item

    async def _landed(self, flight: Flight, frame: Frame | None, node: Node) -> None:
        """Wait until a flight has landed, or leave it."""
        landed: asyncio.Future[None] = self._loop.create_future()
        alarm = _alarm(node)
        waiter = self._flights.wait(flight, landed, frame or self._root, alarm)
        try:
            await (landed if alarm is None else alarm.wait_for(landed))
        except BaseException as error:
            await self._leave(waiter, error)
            raise
        finally:
            if alarm is not None:
                alarm.stop()

    async def _leave(self, waiter: Waiter, why: BaseException) -> None:
        """Leave a flight, and see its end if it ends by that."""
        ending = self._flights.leave(waiter)
        # who closes a session waits for all; who is closed may await nothing any more
        if self._is_open and not isinstance(why, GeneratorExit):
            await ended(ending)

    def _closed_before(self, node: Node) -> SessionError | None:
        """The error of a call that the session's end left without an answer, once it has ended."""
        return None if self._is_open else self._closed(node)

    def _closed(self, node: Node) -> SessionError:
        return SessionError(f"the session was closed before {describe(node)} was answered")

    def start(self, node: Node) -> None:
        """Demand a node on the session's own behalf; its error, if any, stays with its Ref."""
        self.check_open()
        if node.is_planned:
            flight = self._demand.ask(node, node.frame.item)
            self._flights.want(flight)
        else:
            self.on_ended(node)
            self._spawn_in_session(_ignore_outcome(node))

    async def stream(self, node: Node) -> AsyncIterator[str]:
        """The text of a model call, piece by piece."""
        assert isinstance(node, LlmNode)
        self.check_open()
        frame = entered_frame()
        item = self._check_awaiter(node, frame)
        if node.outcome is not None:
            yield node.outcome.get().text
            return
        flight = self._demand.ask(node, item)
        flight.stream = flight.stream or StreamBuffer()
        landed: asyncio.Future[None] = self._loop.create_future()
        alarm = _alarm(node)
        waiter = self._flights.wait(flight, landed, frame or self._root, alarm)
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

    # --- inside --------------------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
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


async def _ignore_outcome(node: Node) -> None:
    try:
        await value_of(node)
    except (asyncio.CancelledError, *ENDS_THE_PROGRAM):
        raise
    except BaseException:
        return  # it belongs to the Ref, which keeps it


def _is_running(node: Node) -> bool:
    return isinstance(node, OperatorNode) and node.is_running


def _alarm(node: Node) -> Alarm | None:
    return None if node.timeout_s is None else Alarm(node.timeout_s, partial(describe, node))


def _raise(error: BaseException) -> None:
    raise error


def _call_back(callback: Callable[[BaseException | None], None]) -> None:
    """Where nothing is remembered, everything is as durable as it will be."""
    callback(None)


def _find_nothing(_: Node) -> None:
    return None


def _none_below(_: Node) -> int:
    return 0


def _check_arguments(
    memo: Any,
    memo_mode: Any,
    rules: Any,
    share: Any,
    token_budget: Any,
    observers: Any,
    run_id: Any,
) -> None:
    if memo == "" or not (memo is None or isinstance(memo, str | Path) or hasattr(memo, "get")):
        raise SessionError(f"memo={memo!r} must be a directory, a store, or None")
    if memo_mode not in MEMO_MODES:
        raise SessionError(f"memo_mode={memo_mode!r} must be one of {', '.join(MEMO_MODES)}")
    if not isinstance(share, bool):
        raise SessionError(f"share={share!r} must be True or False")
    for name, functions in (("rules", rules), ("observers", observers)):
        if not isinstance(functions, list | tuple) or not all(map(callable, functions)):
            raise SessionError(f"{name}={functions!r} must be a list or tuple of functions")
    if token_budget is not None and (type(token_budget) is not int or token_budget < 1):
        raise SessionError(f"token_budget={token_budget!r} must be a whole number, at least 1")
    if not (run_id is None or isinstance(run_id, str)):
        raise SessionError(f"run_id={run_id!r} must be text")
