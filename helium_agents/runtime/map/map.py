"""`session.map` as its user has it: an iterator over the results of an operator for many rows.

It is only a view of a `MapRun`: when it is dropped (a `break`), that ends.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Iterable,
)
from types import TracebackType
from typing import Any, TypeVar

from helium_agents.errors import (
    EngineDied,
    EngineStartError,
    ItemError,
    MemoError,
    SessionError,
    TokenBudgetExceeded,
    shown,
)
from helium_agents.graph.outcome import Value
from helium_agents.runtime.calls import Calls
from helium_agents.runtime.map.map_run import MapRun

T = TypeVar("T")

ENDS_THE_RUN = (EngineStartError, EngineDied, MemoError, SessionError, TokenBudgetExceeded)
"""Failures that are nobody's row: they would fail every other item too."""


class Map(AsyncIterator[T]):
    """The results of `session.map`; iterate it once.

    `async for result in session.map(...)` gives the results; `.indexed()` gives pairs of the
    row's index and the result. As an async context manager it ends the map on leaving; dropping
    it (by `break`) does so too.
    """

    def __init__(
        self,
        calls: Calls,
        fn: Callable[[Any], Awaitable[T]],
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        ordered: bool,
        on_error: str,
        read_ahead: int,
        done: Container[int],
    ) -> None:
        if on_error not in ("raise", "collect"):
            raise ValueError(f"on_error={on_error!r} must be 'raise' or 'collect'")
        if type(read_ahead) is not int or read_ahead < 1:
            raise ValueError(f"read_ahead={read_ahead!r} must be a whole number, at least 1")
        if not isinstance(ordered, bool):
            raise ValueError(f"ordered={ordered!r} must be True or False")
        if not callable(fn):
            raise TypeError(
                f"map(fn, rows): fn is a value of type {type(fn).__name__}, not a function: give "
                "an operator, or any async function of a row"
            )
        if not isinstance(rows, Iterable | AsyncIterable):
            raise TypeError(
                f"map(fn, rows): rows is a value of type {type(rows).__name__}, not an iterable"
            )
        if not isinstance(done, Container):
            raise TypeError(f"done={done!r} must be a set or range of indices")
        self._run = MapRun(calls, fn, rows, is_ordered=ordered, read_ahead=read_ahead, done=done)
        self._results = self._run.results
        self._collects = on_error == "collect"
        # not __del__: the callback holds no reference to us and runs no code of ours in between
        weakref.finalize(self, self._run.cancel).atexit = False

    def __aiter__(self) -> Map[T]:
        return self

    async def __anext__(self) -> T:
        return (await self._next())[1]

    async def indexed(self) -> AsyncGenerator[tuple[int, T], None]:
        """The results with the indices of their rows."""
        try:
            while True:
                yield await self._next()
        except StopAsyncIteration:
            return
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Cancel what is open and wait for its clean-up. Idempotent."""
        await self._run.close()

    async def __aenter__(self) -> Map[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _next(self) -> tuple[int, T]:
        try:
            item, outcome = await self._results.next()
        except asyncio.CancelledError:
            self._results.note_cancelled()
            await self.aclose()
            raise
        except BaseException:
            await self.aclose()
            raise
        if isinstance(outcome, Value):
            return item.index, outcome.value
        error = outcome.error
        is_odd = not isinstance(error, Exception)  # the program's own way to stop, say
        if self._collects and not (is_odd or isinstance(error, ENDS_THE_RUN)):
            return item.index, ItemError(item.index, item.row, error)  # type: ignore[return-value]
        await self.aclose()
        note = f"in item {item.index}: {shown(item.row, 200)}"
        if isinstance(error, StopIteration | StopAsyncIteration):  # which would end the loop
            wrapped = RuntimeError(f"item {item.index} raised {type(error).__name__}")
            wrapped.add_note(note)
            raise wrapped from error
        error.add_note(note)
        raise error
