"""The finished items of a map until they are taken: in the order of the rows, or as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Any

from helium_agents.errors import RefCancelled
from helium_agents.graph.outcome import Outcome
from helium_agents.runtime.item import Item


class MapResults:
    """What a map has to give; `MapRun` fills it, and `Map` takes from it.

    Args:
        is_ordered: Whether they are taken in the order of the rows.
        read_ahead: Most rows that are read and not yet taken.
        done: Indices of rows that have no result.

    Attributes:
        is_ordered: As given.
        num_read: Rows that were read.
        is_closed: Whether the map was ended from outside; then no more is taken.
        error: What ended the map before its rows did, until it is raised.
        taker: Who waits for the next result.
    """

    def __init__(self, *, is_ordered: bool, read_ahead: int, done: Container[int]) -> None:
        self.is_ordered = is_ordered
        self.num_read = 0
        self.is_closed = False
        self.error: BaseException | None = None
        self.taker: asyncio.Task[Any] | None = None
        self._read_ahead = read_ahead
        self._done = done
        self._finished: dict[int, tuple[Item, Outcome]] = {}
        self._num_taken = 0
        self._next_index = 0
        self._is_exhausted = False
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._finished)

    # --- filled --------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether a result must be taken before another row is read."""
        return self.num_read - self._num_taken >= self._read_ahead

    async def room(self) -> None:
        """Wait until another row may be read."""
        while self.is_full:
            self._has_room.clear()
            await self._has_room.wait()

    def skip(self) -> None:
        """A row was read that has no result."""
        self.num_read += 1
        self._num_taken += 1

    def put(self, item: Item, outcome: Outcome) -> None:
        """An item has finished."""
        self._finished[item.index] = item, outcome
        self._changed.set()

    def exhaust(self, error: BaseException | None) -> None:
        """No more rows are read, because of an error or because there are none."""
        self._is_exhausted = True
        self.error = self.error or error
        self._changed.set()

    def close(self) -> None:
        """Whoever waits for a result waits in vain."""
        self.is_closed = True
        self._changed.set()

    def note_cancelled(self) -> None:
        """Who waited for the next result was cancelled, which ends the map."""
        if self.error is None and not self.is_closed:
            self.error = RefCancelled(
                "the map was ended when the wait for its next result was cancelled. To look for a "
                "result for a while and then again, keep the wait: "
                "asyncio.wait({asyncio.ensure_future(anext(results))}, timeout=...)"
            )

    # --- taken ---------------------------------------------------------------------------------

    @property
    def next_index(self) -> int:
        """The row whose result is taken next; -1 where that is whichever comes."""
        if not self.is_ordered:
            return next(iter(self._finished), -1)
        while self._next_index < self.num_read and self._next_index in self._done:
            self._next_index += 1
        return self._next_index

    async def next(self) -> tuple[Item, Outcome]:
        """The next finished item.

        Raises:
            StopAsyncIteration: There are no more.
            BaseException: What ended the map.
        """
        while (taken := self._finished.pop(self.next_index, None)) is None:
            if self.is_closed or (self._is_exhausted and self._num_taken == self.num_read):
                error, self.error = self.error, None
                raise StopAsyncIteration if error is None else error
            self._changed.clear()
            self.taker = asyncio.current_task()
            try:
                await self._changed.wait()
            finally:
                self.taker = None
        self._num_taken += 1
        self._next_index += 1
        self._has_room.set()
        return taken
