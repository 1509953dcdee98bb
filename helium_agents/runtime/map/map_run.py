"""A map in progress: a pump task reads rows ahead, and opens an item for each.

Each item runs in a task of its own. What the items ask waits for its turn in the dispatcher, so
nearly all may be open at once. The iterator that the user holds may be dropped: the run ends on
its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import AsyncIterable, Awaitable, Callable, Container, Iterable, Sized
from contextlib import aclosing
from functools import partial
from typing import Any

from helium_agents.errors import RefCancelled, SessionError
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM, ended
from helium_agents.graph.inline import awaitable
from helium_agents.graph.outcome import Failure, Outcome, Value
from helium_agents.graph.task_waits import AWAITED_BY, Stuck
from helium_agents.graph.trace import Frame, entered, entered_frame
from helium_agents.runtime.calls import Calls
from helium_agents.runtime.item import Item
from helium_agents.runtime.learning.learners import Mapped
from helium_agents.runtime.map.map_results import MapResults
from helium_agents.runtime.map.map_rows import Level, read_items
from helium_agents.runtime.workflow import Workflow, name_of
from helium_agents.telemetry.events import ItemClosed, ItemOpened, MapOpened

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


class MapRun:
    """A map in progress.

    Args:
        calls: Those of its session.
        fn: What is done with each row.
        rows: The rows.
        is_ordered: Whether results are taken in the order of the rows.
        read_ahead: Most rows that are read and not yet taken.
        done: Indices of rows that are read, but neither run nor given.

    Attributes:
        results: What has come of it.
    """

    def __init__(
        self,
        calls: Calls,
        fn: Callable[[Any], Awaitable[Any]],
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        is_ordered: bool,
        read_ahead: int,
        done: Container[int],
    ) -> None:
        self.results = MapResults(is_ordered=is_ordered, read_ahead=read_ahead, done=done)
        self._calls = calls
        self._fn = fn
        self._rows = rows
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        caller = entered_frame() or calls.root
        level = "map", caller.next_ordinal("map", b"")
        self._frame = Frame(calls, caller, level, is_pure=caller.is_pure, item=caller.item)
        self._open_items: dict[Item, asyncio.Task[None]] = {}
        self._num_uncommitted = 0
        self._has_ended = asyncio.Event()
        self._doing = "waits for its next row"
        num_rows = len(rows) if isinstance(rows, Sized) else None
        num_done = len(done) if isinstance(done, Sized) else 0
        self._mapped = Mapped(fn, None if num_rows is None else num_rows - num_done)
        calls.emit(MapOpened(num_rows, caller.item is not None, num_done))
        self._workflow: Workflow | None = None
        if caller.item is None:
            self._workflow = Workflow(calls, fn, num_rows=num_rows, caller=caller.node)
        calls.maps[self] = None
        self._weak = weakref.ref(self)
        self._pump_task = calls.tasks.spawn(self._pump(), self._end_pump, self._context)
        AWAITED_BY[self._pump_task] = partial(_who_awaits, self._weak, None)

    # --- what is seen of it --------------------------------------------------------------------

    @property
    def state(self) -> str:
        """What the map is doing, in words."""
        return (
            f"map of {name_of(self._fn)}: {self._doing}, rows read: {self.results.num_read}, "
            f"items open: {len(self._open_items)}, answers being written: "
            f"{self._num_uncommitted}, results not taken yet: {len(self.results)}"
        )

    def open_items(self, now_s: float) -> list[tuple[Item, str]]:
        """The open items, each with what to say of it."""
        return [
            (item, f"item {item.index} of a map: {now_s - (item.opened_s or now_s):.1f} s")
            for item in self._open_items
        ]

    def taker_waiting_for(self, item: Item | None, stuck: Stuck) -> asyncio.Task[Any] | None:
        """Who can go on only once an item has ended, or (`None`) once a further row is read."""
        results = self.results
        if not results.is_ordered:
            own = self._pump_task if item is None else self._open_items.get(item)
            is_awaited = stuck is None or all(
                task is own or task.done() or task in stuck for task in self._tasks
            )
        else:
            is_awaited = results.next_index == (results.num_read if item is None else item.index)
        return results.taker if is_awaited else None

    @property
    def _tasks(self) -> tuple[asyncio.Task[None], ...]:
        return (*self._open_items.values(), self._pump_task)

    # --- ended from outside --------------------------------------------------------------------

    def cancel(self) -> None:
        """End the map without waiting; may be called from the garbage collector."""
        if not self.results.is_closed and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel_tasks)

    async def close(self) -> None:
        """End the map and wait for the clean-up of what was open."""
        tasks = self._tasks
        self._cancel_tasks()
        await ended(tasks)

    def _cancel_tasks(self) -> None:
        self.results.close()
        for task in self._tasks:
            if not task.cancelling():  # a second time would interrupt its clean-up
                task.cancel()

    def _cancelled(self, when: str) -> Exception:
        """The error of what was cancelled, though not by closing the map."""
        if not self._calls.tasks.is_open:
            return SessionError(f"the session was closed while a map was open, {when}")
        return RefCancelled(f"the map was cancelled from inside, {when}")

    # --- rows ----------------------------------------------------------------------------------

    async def _pump(self) -> None:
        """Read rows and open items; what it raises is kept by `_end_pump`."""
        results, num_opened = self.results, 0
        read = read_items(self._rows, results, self._done, self._frame.item, self._calls.ranks)
        try:
            async with aclosing(read) as items:
                async for item, level in items:
                    await self._room()
                    self._open(item, level)
                    self._doing = "waits for its next row"
                    num_opened += 1
                    if num_opened % _GROUP == 0:
                        await self._let_run()
        except asyncio.CancelledError:
            if not results.is_closed:  # the session was, or the source was cancelled from inside
                results.error = self._cancelled("before it had read all of its rows")
            raise

    async def _let_run(self) -> None:
        """Let what is open get on before more is opened."""
        for _ in range(_MAX_TURNS):
            await asyncio.sleep(0)
            if not self._open_items:
                return

    async def _room(self) -> None:
        """Wait until a further item may be open.

        Items may wait for one that is not open yet: while nothing at all is under way in the
        session, they are opened one after another.
        """
        if self.results.is_full:
            self._doing = "waits until a result is taken"
            await self.results.room()
        flights = self._calls.flights
        while len(self._open_items) >= MOST_OPEN:
            self._doing = "waits until an item ends"
            self._has_ended.clear()
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._has_ended.wait()
            except TimeoutError:
                if not (flights.wanted or flights.planned):
                    return

    def _end_pump(self, error: BaseException | None) -> None:
        """No more rows are read, whatever the reason; the pump may never have begun."""
        self._doing = "all rows are read"
        self.results.exhaust(error)
        self._note_end()

    def _note_end(self) -> None:
        if not self._pump_task.done() or self._open_items:
            return
        self._calls.maps.pop(self, None)
        if self._workflow is not None and not self._num_uncommitted:
            self._workflow.end(self.results.error)

    # --- items ---------------------------------------------------------------------------------

    def _open(self, item: Item, level: Level) -> None:
        self.results.num_read += 1
        item.opened_s = self._loop.time()
        if not item.is_nested:
            self._calls.dispatcher.item_began(item.rank, self._mapped)
        frame = Frame(self._calls, self._frame, level, is_pure=self._frame.is_pure, item=item)
        task = self._open_items[item] = self._calls.tasks.spawn(
            self._run_item(item, frame), partial(self._end_item, item), self._context
        )
        AWAITED_BY[task] = partial(_who_awaits, self._weak, item)

    async def _run_item(self, item: Item, frame: Frame) -> None:
        calls = self._calls
        if calls.is_watched:
            number = 0 if self._workflow is None else self._workflow.number
            calls.emit(ItemOpened(item.index, item.is_nested, item.rank, number))
        outcome: Outcome
        try:
            with entered(frame):
                outcome = Value(await awaitable(self._fn, item.row))
        except (asyncio.CancelledError, GeneratorExit, *ENDS_THE_PROGRAM):
            raise  # see `_end_item`
        except BaseException as error:
            outcome = Failure(error)
        item.ended_s = self._loop.time()
        self._num_uncommitted += 1
        calls.when_committed(partial(self._commit, item, outcome))

    def _end_item(self, item: Item, error: BaseException | None) -> None:
        """The item's task has ended; it may have been cancelled before it began."""
        del self._open_items[item]
        if item.ended_s is None and not self.results.is_closed:
            error = error or self._cancelled(f"before item {item.index} was done")
            self._finish(item, Failure(error))
        self._note_end()
        self._has_ended.set()
        if not item.is_nested:
            self._calls.dispatcher.item_ended(item.rank)

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
        self._calls.emit(closed)
        self.results.put(item, outcome)


def _who_awaits(
    run: weakref.ref[MapRun], item: Item | None, stuck: Stuck
) -> asyncio.Task[Any] | None:
    found = run()
    return None if found is None else found.taker_waiting_for(item, stuck)
