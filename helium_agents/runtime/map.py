"""`session.map`: an operator over many rows, streamed in bounded memory.

A pump task reads rows ahead, opens an item for each, and lets it run in a task of its own. What the
items ask waits for its turn in the dispatcher, so nearly all may be open at once. The iterator that
the user holds is only a view: when it is dropped (a `break`), the map ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Generator,
    Iterable,
    Sized,
)
from contextlib import aclosing
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, TypeVar

from helium_agents.errors import (
    EngineDied,
    EngineStartError,
    HeliumError,
    ItemError,
    MemoError,
    RefCancelled,
    SessionError,
    TokenBudgetExceeded,
)
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM, ended
from helium_agents.graph.inline import awaitable
from helium_agents.graph.outcome import Failure, Outcome, Value
from helium_agents.graph.task_waits import AWAITED_BY, Stuck
from helium_agents.graph.trace import Frame, enter, entered_frame, leave
from helium_agents.keys.encoding import encode, fingerprint
from helium_agents.runtime.calls import Calls
from helium_agents.runtime.dispatcher import Dispatcher
from helium_agents.runtime.item import Item
from helium_agents.runtime.learners import Mapped
from helium_agents.runtime.tasks import Tasks
from helium_agents.telemetry.events import (
    ItemClosed,
    ItemOpened,
    MapOpened,
    Observer,
    WorkflowBegan,
    WorkflowEnded,
)

T = TypeVar("T")

ENDS_THE_RUN = (EngineStartError, EngineDied, MemoError, SessionError, TokenBudgetExceeded)
"""Failures that are nobody's row: they would fail every other item too."""

_GROUP, _MAX_TURNS = 8, 8
"""So many items are opened at once, and at most so many turns of the event loop lie between two
groups: fewer where all items have ended.

What a group asks of a quick engine or of the memo is then done before the next one begins. Where
many items go through the same steps together, all that they make stays alive for a while, and the
garbage collector looks at it again and again: a tenth of the time of a fast run. It looks after 700
new objects, so that what so few items make goes unseen.
"""

MOST_OPEN = 1024
"""So many items of a map are open at once, for the sake of memory."""

_LOOK_AGAIN_S = 0.05
"""How often a map with so many open looks whether any call is under way at all."""

_YIELD_EVERY = 256  # rows that are skipped before others get their turn


class Maps:
    """A session's maps, and what they need of the session.

    Args:
        calls: The session's calls.
        dispatcher: Told of items, for whom requests wait for their turn.
        tasks: The session's tasks.
        emit: Takes events.
        is_watched: Whether anybody but the summary sees events.
        when_committed: Calls back once everything remembered so far is durable, with the error if
            it cannot be.

    Attributes:
        open: Those of which something is open.
        ranks: Counts the rows that are read.
        next_number: Gives a map its number.
        bodies: The operator calls that events name.
    """

    def __init__(
        self,
        calls: Calls,
        dispatcher: Dispatcher,
        tasks: Tasks,
        emit: Observer,
        when_committed: Callable[[Callable[[BaseException | None], None]], None],
        *,
        is_watched: bool,
    ) -> None:
        self.root = calls.root
        self.flights = calls.flights
        self.dispatcher = dispatcher
        self.tasks = tasks
        self.emit = emit
        self.when_committed = when_committed
        self.is_watched = is_watched
        self.open = calls.maps
        self.ranks = count()
        self.next_number = calls.next_number
        self.bodies = calls.bodies
        self._calls = calls

    @property
    def is_closed(self) -> bool:
        """Whether the session ends."""
        return not self._calls.is_open


class Map(AsyncIterator[T]):
    """The results of `session.map`; iterate it once.

    `async for result in session.map(...)` gives the results; `.indexed()` gives pairs of the
    row's index and the result. As an async context manager it ends the map on leaving; dropping
    it (by `break`) does so too.
    """

    def __init__(
        self,
        maps: Maps,
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
        self._run = MapRun(maps, fn, rows, is_ordered=ordered, read_ahead=read_ahead, done=done)
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
            item, outcome = self._run.take() or await self._run.next()
        except asyncio.CancelledError:
            self._run.note_cancelled()
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
        note = f"in item {item.index}: {_shown(item.row)}"
        if isinstance(error, StopIteration | StopAsyncIteration):  # which would end the loop
            wrapped = RuntimeError(f"item {item.index} raised {type(error).__name__}")
            wrapped.add_note(note)
            raise wrapped from error
        error.add_note(note)
        raise error


class MapRun:
    """A map in progress. The iterator may be dropped; this ends on its own."""

    def __init__(
        self,
        maps: Maps,
        fn: Callable[[Any], Awaitable[Any]],
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        is_ordered: bool,
        read_ahead: int,
        done: Container[int],
    ) -> None:
        self._maps = maps
        self._fn = fn
        self._rows = rows
        self._is_ordered = is_ordered
        self._read_ahead = read_ahead
        self._done = done
        self._next_index = 0
        self._context = contextvars.copy_context()
        caller = entered_frame() or maps.root
        ordinal = caller.next_ordinal("map", b"")
        self._frame = Frame(
            maps.root.runner, caller, ("map", ordinal), is_pure=caller.is_pure, item=caller.item
        )
        self._seen: set[int] = set()  # rows, by 8 bytes each: it is all that grows with the input
        self._num_again: Counter[int] = Counter()
        self._finished: dict[int, tuple[Item, Outcome]] = {}
        self._num_taken = 0
        self._num_read = 0
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._source_error: BaseException | None = None
        self._is_exhausted = False
        self._is_closed = False
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        num_items = len(rows) if isinstance(rows, Sized) else None
        num_done = len(done) if isinstance(done, Sized) else 0
        maps.emit(MapOpened(num_items, caller.item is not None, num_done))
        self._number = 0  # of a map that has a workflow's events
        if maps.is_watched and caller.item is None:
            self._number = maps.next_number()
            name = getattr(fn, "__name__", "a function")
            body = None if caller.node is None else maps.bodies.of(caller.node)
            maps.emit(WorkflowBegan(self._number, name, num_items, body))
        self._mapped = Mapped(fn, None if num_items is None else num_items - num_done)
        self._open_items: dict[int, Item] = {}
        self._doing = "waits for its next row"
        self._num_uncommitted = 0
        maps.open[self] = None
        self._taker: asyncio.Task[Any] | None = None  # who waits for the next result
        self._weak = weakref.ref(self)
        self._pump_task = maps.tasks.spawn(self._pump(), self._context.copy(), self._end_pump)
        AWAITED_BY[self._pump_task] = partial(_who_awaits, self._weak, None)

    @property
    def state(self) -> str:
        """What the map is doing, in words."""
        name = getattr(self._fn, "__name__", "a function")
        return (
            f"map of {name}: {self._doing}, rows read: {self._num_read}, items open: "
            f"{len(self._open_items)}, answers being written: {self._num_uncommitted}, results not "
            f"taken yet: {len(self._finished)}"
        )

    def open_items(self, now_s: float) -> list[tuple[Item, str]]:
        """The open items, each with what to say of it."""
        return [
            (item, f"item {item.index} of a map: {now_s - (item.opened_s or now_s):.1f} s")
            for item in self._open_items.values()
        ]

    async def next(self) -> tuple[Item, Outcome]:
        """The next finished item."""
        while True:
            taken = self.take()
            if taken is not None:
                return taken
            if self._is_closed:
                if self._source_error is not None:
                    raise self._take_source_error()
                raise StopAsyncIteration
            if self._is_exhausted and self._num_taken == self._num_read:
                if self._source_error is not None:
                    raise self._take_source_error()
                raise StopAsyncIteration
            self._changed.clear()
            self._taker = asyncio.current_task()
            try:
                await self._changed.wait()
            finally:
                self._taker = None

    def taker_waiting_for(self, index: int | None, stuck: Stuck) -> asyncio.Task[Any] | None:
        """Who can go on only once a row has its result, or (`None`) once a further row is read."""
        if not self._is_ordered:
            tasks = {*self._tasks.values(), self._pump_task}
            own = self._pump_task if index is None else self._tasks.get(index)
            is_awaited = stuck is None or all(
                task is own or task.done() or task in stuck for task in tasks
            )
        else:
            is_awaited = self._next_key() == (self._num_read if index is None else index)
        return self._taker if is_awaited else None

    def note_cancelled(self) -> None:
        """Who waited for the next result was cancelled, which ends the map."""
        if self._source_error is None and not self._is_closed:
            self._source_error = RefCancelled(
                "the map was ended when the wait for its next result was cancelled. To look for a "
                "result for a while and then again, keep the wait: "
                "asyncio.wait({asyncio.ensure_future(anext(results))}, timeout=...)"
            )

    def _take_source_error(self) -> BaseException:
        error, self._source_error = self._source_error, None
        assert error is not None
        return error

    def take(self) -> tuple[Item, Outcome] | None:
        """The next finished item, if it is there."""
        taken = self._finished.pop(self._next_key(), None)
        if taken is not None:
            self._num_taken += 1
            self._next_index += 1
            self._has_room.set()
        return taken

    def _next_key(self) -> int:
        if not self._is_ordered:
            return next(iter(self._finished), -1)
        while self._next_index < self._num_read and self._next_index in self._done:
            self._next_index += 1
        return self._next_index

    def cancel(self) -> None:
        """End the map without waiting; may be called from the garbage collector."""
        if not self._is_closed and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel_tasks)

    async def close(self) -> None:
        """End the map and wait for the clean-up of what was open."""
        tasks = (*self._tasks.values(), self._pump_task)
        self._cancel_tasks()
        await ended(tasks)

    def _cancel_tasks(self) -> None:
        self._is_closed = True
        self._changed.set()
        for task in (*self._tasks.values(), self._pump_task):
            if not task.cancelling():  # a second time would interrupt its clean-up
                task.cancel()

    async def _pump(self) -> None:
        """Read rows and open items."""
        try:
            num_opened = 0
            async with aclosing(_each(self._rows)) as rows:
                async for row in rows:
                    item = Item(self._num_read, row, self._frame.item, next(self._maps.ranks))
                    frame = self._item_frame(item)
                    if item.index in self._done:
                        await self._skip()
                        continue
                    await self._room()
                    self._open(item, frame)
                    self._doing = "waits for its next row"
                    num_opened += 1
                    if num_opened % _GROUP == 0:
                        await self._let_run()
        except asyncio.CancelledError:
            if not self._is_closed:  # the session was, or the source was cancelled from inside
                self._source_error = self._cancelled("before it had read all of its rows")
            raise
        except GeneratorExit:
            raise
        except BaseException as error:
            self._source_error = error
            if isinstance(error, ENDS_THE_PROGRAM):
                raise

    def _end_pump(self, error: BaseException | None) -> None:
        """No more rows are read, whatever the reason; the pump may never have begun."""
        self._is_exhausted = True
        self._doing = "all rows are read"
        self._source_error = self._source_error or error
        self._changed.set()
        self._note_end()

    def _note_end(self) -> None:
        if not self._pump_task.done() or self._tasks:
            return
        self._maps.open.pop(self, None)
        if self._number and not self._num_uncommitted:
            self._maps.emit(WorkflowEnded(self._number, self._source_error))
            self._number = 0

    def _cancelled(self, when: str) -> Exception:
        """The error of what was cancelled, though not by closing the map."""
        if self._maps.is_closed:
            return SessionError(f"the session was closed while a map was open, {when}")
        return RefCancelled(f"the map was cancelled from inside, {when}")

    async def _let_run(self) -> None:
        """Let what is open get on before more is opened."""
        for _ in range(_MAX_TURNS):
            await asyncio.sleep(0)
            if not self._tasks:
                return

    async def _skip(self) -> None:
        """The row was answered by an earlier part of the run."""
        self._num_read += 1
        self._num_taken += 1
        if self._num_read % _YIELD_EVERY == 0:
            await asyncio.sleep(0)

    async def _room(self) -> None:
        """Wait until a further item may be open.

        Items may wait for one that is not open yet: while nothing at all is under way in the
        session, they are opened one after another.
        """
        while self._num_read - self._num_taken >= self._read_ahead:
            self._doing = "waits until a result is taken"
            self._has_room.clear()
            await self._has_room.wait()
        while len(self._tasks) >= MOST_OPEN:
            self._doing = "waits until an item ends"
            self._has_ended.clear()
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._has_ended.wait()
            except TimeoutError:
                if not (self._maps.flights.wanted or self._maps.flights.planned):
                    return

    def _open(self, item: Item, frame: Frame) -> None:
        self._num_read += 1
        item.opened_s = self._loop.time()
        self._open_items[item.index] = item
        if not item.is_nested:
            self._maps.dispatcher.item_began(item.rank, self._mapped)
        task = self._tasks[item.index] = self._maps.tasks.spawn(
            self._run_item(item, frame), self._context.copy(), partial(self._end_item, item)
        )
        AWAITED_BY[task] = partial(_who_awaits, self._weak, item.index)

    def _end_item(self, item: Item, error: BaseException | None) -> None:
        del self._tasks[item.index]
        del self._open_items[item.index]
        # it may have been cancelled before it began
        if item.ended_s is None and not self._is_closed:
            error = error or self._cancelled(f"before item {item.index} was done")
            self._finish(item, Failure(error))
        self._note_end()
        self._has_ended.set()
        if not item.is_nested:
            self._maps.dispatcher.item_ended(item.rank)

    async def _run_item(self, item: Item, frame: Frame) -> None:
        maps = self._maps
        if maps.is_watched:
            maps.emit(ItemOpened(item.index, item.is_nested, item.rank, self._number))
        outcome: Outcome
        try:
            token = enter(frame)
            try:
                outcome = Value(await awaitable(self._fn, item.row))
            except BaseException:
                frame.has_failed = True
                raise
            finally:
                leave(token)
        except asyncio.CancelledError:
            if self._is_closed:
                return
            if maps.is_closed:
                return  # see `_end_item`
            outcome = Failure(RefCancelled(f"item {item.index} was cancelled from inside"))
        except GeneratorExit:
            raise
        except BaseException as error:
            outcome = Failure(error)
            if isinstance(error, ENDS_THE_PROGRAM):
                item.ended_s = self._loop.time()
                self._finish(item, outcome)
                raise
        item.ended_s = self._loop.time()
        self._num_uncommitted += 1
        maps.when_committed(partial(self._commit, item, outcome))

    def _commit(self, item: Item, outcome: Outcome, commit_error: BaseException | None) -> None:
        """Hand over an item whose answers are durable, or never will be."""
        self._num_uncommitted -= 1
        if commit_error is not None and isinstance(outcome, Value):
            outcome = Failure(commit_error)
        self._finish(item, outcome)
        self._note_end()

    def _finish(self, item: Item, outcome: Outcome) -> None:
        failure = outcome.error if isinstance(outcome, Failure) else None
        closed = ItemClosed(item.index, item.is_nested, failure, item.rank, item.ended_s)
        self._maps.emit(closed)
        self._finished[item.index] = (item, outcome)
        self._changed.set()

    def _item_frame(self, item: Item) -> Frame:
        """The item's frame: it is identified by its row and how often the row came before."""
        try:
            digest = fingerprint(item.row)
        except HeliumError:  # no part of a key
            digest = encode(item.index)
        item.digest = digest
        short, occurrence = int.from_bytes(digest[:8], "big"), 0
        if short in self._seen:
            self._num_again[short] += 1
            occurrence = self._num_again[short]
        else:
            self._seen.add(short)
        level = ("item", digest, occurrence)
        return Frame(self._frame.runner, self._frame, level, is_pure=self._frame.is_pure, item=item)


def _who_awaits(
    run: weakref.ref[MapRun], index: int | None, stuck: Stuck
) -> asyncio.Task[Any] | None:
    found = run()
    return None if found is None else found.taker_waiting_for(index, stuck)


async def _each(rows: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """The rows; a generator of rows is closed when no more are wanted."""
    source: Any = aiter(rows) if isinstance(rows, AsyncIterable) else iter(rows)
    try:
        if isinstance(rows, AsyncIterable):
            async for row in source:
                yield row
        else:
            for row in source:
                yield row
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()
        elif isinstance(source, Generator):
            source.close()


def _shown(row: Any) -> str:
    """A row as a note names it."""
    try:
        text = repr(row)
    except Exception as error:  # the row's own
        text = f"<a {type(row).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= 200 else text[:197] + "..."
