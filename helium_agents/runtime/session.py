"""`Session`: what runs the calls made inside it.

`Assembly` makes its parts, `Calls` answers what is asked. Leaving the session cancels what is
left, waits for its clean-up, and stops the engines that the session started.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Container,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, Literal, TypeVar, Unpack, overload

from helium_agents.engines.default import EngineLike
from helium_agents.errors import ImpureCall, ItemError, SessionError
from helium_agents.graph.inline import awaitable
from helium_agents.graph.plan import LogicalPlan
from helium_agents.graph.trace import (
    Frame,
    check_effect,
    entered,
    entered_frame,
    offer_root,
    set_frame,
)
from helium_agents.memo.run_log import RunLog
from helium_agents.runtime.assembly import Assembly
from helium_agents.runtime.calls import Calls
from helium_agents.runtime.map.map import Map
from helium_agents.runtime.options import SessionOptions
from helium_agents.runtime.tasks import Tasks, not_open
from helium_agents.runtime.workflow import Workflow
from helium_agents.telemetry.events import Observer

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
        self._assembly = Assembly(engine, observers, run_id, run_log, options)
        self.run_id = self._assembly.run_id
        self.summary = self._assembly.summary
        self._executed = self._assembly.executed
        self._calls: Calls | None = None  # once it is open
        self._early_state: Literal["new", "opening", "closed"] = "new"

    # --- opening and closing -------------------------------------------------------------------

    @property
    def _state(self) -> Literal["new", "opening", "open", "closing", "closed"]:
        return self._early_state if self._calls is None else self._calls.tasks.state

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
        tasks = Tasks()
        try:
            calls = await self._assembly.open(tasks)
        except BaseException:
            self._early_state = "closed"
            await tasks.close()
            raise
        tasks.context.run(set_frame, calls.root)
        self._calls = calls
        offer_root(calls.root, calls.loop)
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        set_frame(self._outer_frame)
        calls = self._opened()
        calls.close()
        await calls.tasks.close()
        if error is None:
            calls.inline.warn_of_unawaited()

    async def close(self) -> None:
        """Cancel what is left, wait for its clean-up, and stop the engines that sessions started.

        Whoever still waits for a call gets a `SessionError`. Calls of plain operators that nobody
        awaited are warned of, with the place where they were made. Idempotent.

        Raises:
            SessionError: It is called inside one of the session's own calls, which would wait for
                itself.
        """
        calls = self._calls
        if calls is None:
            if self._early_state == "opening":
                raise SessionError("this session is being opened: await open() before close()")
            self._early_state = "closed"
            return
        frame = entered_frame()
        is_ours = frame is not None and frame.runner is calls
        is_inside = is_ours and frame is not None and (frame.node or frame.item)
        if is_inside or asyncio.current_task() in calls.tasks:
            raise SessionError(
                "close() was called inside a call or a row of this session, for whose end it "
                "waits: close the session outside of them"
            )
        calls.close()
        if calls.tasks.state == "closing":
            # Who is cancelled goes at once, and the supervisor goes on: a call that is being ended
            # may wait for just this task.
            await asyncio.shield(calls.tasks.supervisor)
            calls.inline.warn_of_unawaited()

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
        calls.tasks.check_open()
        frame = entered_frame()
        if frame is not None and frame.runner is calls:
            return await awaitable(fn, *args, **kwargs)
        if frame is not None and frame.is_pure:
            raise ImpureCall("session.run(...) was called inside a pure operator: drop pure=True")
        # Unseeded draws of one call of `run` are not those of another.
        ordinal = calls.root.next_ordinal("root", None)
        frame = Frame(calls, calls.root, ("root", ordinal) if ordinal else ("root",))
        with Workflow(calls, fn, is_run=True), entered(frame):
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
        calls = self._opened()
        calls.tasks.check_open()
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
