"""Walks through the tables of an LMDB memo, one page per read transaction.

A reader that stays for long keeps LMDB from using freed pages again, so a walk that a caller may
pause reads a page, lets go, and goes on behind the last key. Memory is bounded by the page.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

import lmdb

from helium_agents.memo.entry import decode
from helium_agents.memo.lmdb_tables import (
    Row,
    Tables,
    format_count,
    parse_count,
    parse_row,
    parse_time,
)
from helium_agents.memo.provenance import decode_provenance
from helium_agents.memo.store import EntryInfo, FullEntry

_PAGE_ROWS: Final = 1024
_PAGE_BYTES: Final = 2**20

Txn: TypeAlias = "lmdb.Transaction[bytes]"


class Walk(NamedTuple):
    """A page of a walk: what it found, and where the next begins; `None` at the end."""

    found: list[FullEntry]
    num_damaged: int
    next_key: bytes | None


def describe(txn: Txn, tables: Tables, key: bytes) -> EntryInfo | None:
    """What the index says of a key."""
    value = txn.get(key, db=tables.index)
    return _info(txn, tables, key, parse_row(value)) if value else None


def provenance_of(txn: Txn, tables: Tables, key: bytes) -> tuple[Row, bytes | None] | None:
    """The index row and the provenance record of a key."""
    value = txn.get(key, db=tables.index)
    if value is None:
        return None
    return parse_row(value), txn.get(key, db=tables.provenance) if tables.provenance else None


def newest(
    txn: Txn,
    tables: Tables,
    *,
    is_wanted: Callable[[Row], bool],
    before: tuple[float, bytes] | None,
    num_most: int,
) -> list[EntryInfo]:
    """The newest entries of those before a time and key, the newest first.

    There is no table sorted by time, which each put would pay for, but a pass over the index for
    each page, which takes 1 s per million entries.
    """
    page: list[tuple[float, bytes, bytes]] = []  # a heap: the oldest of them is the first
    for key, value in txn.cursor(db=tables.index):
        created_s = parse_time(value)
        is_full = len(page) == num_most
        if (is_full and created_s < page[0][0]) or (before and (created_s, key) >= before):
            continue
        if is_wanted(parse_row(value)):
            if is_full:
                heapq.heappushpop(page, (created_s, key, value))
            else:
                heapq.heappush(page, (created_s, key, value))
    page.sort(reverse=True)
    return [_info(txn, tables, key, parse_row(value)) for _, key, value in page]


def by_key(txn: Txn, tables: Tables, after: bytes) -> list[tuple[bytes, Row]]:
    """The next keys and rows in order of keys."""
    cursor = txn.cursor(db=tables.index)
    found: list[tuple[bytes, Row]] = []
    if cursor.set_range(after + b"\0"):
        for key, value in cursor:
            found.append((key, parse_row(value)))
            if len(found) == _PAGE_ROWS:
                break
    return found


def by_use(txn: Txn, tables: Tables, after: int) -> list[tuple[int, bytes, Row]]:
    """The next sequence numbers, keys and rows, from the least to the most recently used."""
    cursor = txn.cursor(db=tables.recency)
    found: list[tuple[int, bytes, Row]] = []
    if cursor.set_range(format_count(after + 1)):
        for number, key in cursor:
            value = txn.get(key, db=tables.index)
            if value is not None:
                found.append((parse_count(number), key, parse_row(value)))
            if len(found) == _PAGE_ROWS:
                break
    return found


def full(txn: Txn, tables: Tables, after: bytes) -> Walk:
    """The next entries in order of keys, with values and provenance."""
    cursor = txn.cursor(db=tables.entries)
    found: list[FullEntry] = []
    num_damaged = num_bytes = 0
    for key, record in _from(cursor, after + b"\0"):
        if num_bytes > _PAGE_BYTES or len(found) == _PAGE_ROWS:
            return Walk(found, num_damaged, found[-1].key)
        entry = decode(record)
        if entry is None:
            num_damaged += 1
            continue
        provenance = txn.get(key, db=tables.provenance) if tables.provenance else None
        plain = decode_provenance(provenance) if provenance else None
        found.append(FullEntry(key, entry.label, entry.created_s, entry.payload, plain or b""))
        num_bytes += len(record) + len(plain or b"")
    return Walk(found, num_damaged, None)


def _from(cursor: lmdb.Cursor[bytes], key: bytes) -> Iterator[tuple[bytes, bytes]]:
    return iter(cursor) if cursor.set_range(key) else iter(())


def _info(txn: Txn, tables: Tables, key: bytes, row: Row) -> EntryInfo:
    has_provenance = (
        tables.provenance is not None and txn.get(key, db=tables.provenance) is not None
    )
    return EntryInfo(key, row.label, row.num_bytes, row.created_s, has_provenance)
