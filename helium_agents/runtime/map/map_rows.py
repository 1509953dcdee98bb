"""The rows of a map: read from whatever iterable they are in, each told apart from the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Container,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import aclosing
from typing import Any

from helium_agents.errors import HeliumError
from helium_agents.keys.encoding import encode, fingerprint
from helium_agents.runtime.item import Item
from helium_agents.runtime.map.map_results import MapResults

_YIELD_EVERY = 256  # rows that are skipped before others get their turn

Level = tuple[str, bytes, int]
"""What identifies a row within its map: its content, and how often that came before."""


async def read_items(
    rows: Iterable[Any] | AsyncIterable[Any],
    results: MapResults,
    done: Container[int],
    outer: Item | None,
    ranks: Iterator[int],
) -> AsyncGenerator[tuple[Item, Level], None]:
    """The items of a map, each with its level.

    Args:
        rows: The rows; a generator of rows is closed when no more are wanted.
        results: Told of the rows that are skipped.
        done: Indices of the rows to skip, which count for the levels of later ones.
        outer: The item that the map works for.
        ranks: Counts the rows of the session.
    """
    levels = _Levels()
    async with aclosing(_each(rows)) as source:
        async for row in source:
            item = Item(results.num_read, row, outer, next(ranks))
            level = levels.of(item)
            if item.index not in done:
                yield item, level
                continue
            results.skip()
            if results.num_read % _YIELD_EVERY == 0:
                await asyncio.sleep(0)


class _Levels:
    """Counts how often each row came."""

    def __init__(self) -> None:
        self._seen: set[int] = set()  # 8 bytes a row: it is all that grows with the input
        self._num_again: Counter[int] = Counter()

    def of(self, item: Item) -> Level:
        """The level of the next item; sets its `digest`."""
        try:
            item.digest = fingerprint(item.row)
        except HeliumError:  # no part of a key
            item.digest = encode(item.index)
        short, occurrence = int.from_bytes(item.digest[:8], "big"), 0
        if short in self._seen:
            self._num_again[short] += 1
            occurrence = self._num_again[short]
        else:
            self._seen.add(short)
        return "item", item.digest, occurrence


async def _each(rows: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
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
