"""The full check of an LMDB memo, and the repair that makes again what `entries` can tell.

What must hold: every record and every provenance record is whole; each entry has one index row,
which says its size, time and label, and one place in the order of use, under the number in its row;
nothing has a row, a place or provenance without an entry; the count of live bytes is the sum of the
rows, and within the bound that the last writer held.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import lmdb

from helium_agents.memo.entry import Entry, decode
from helium_agents.memo.lmdb_tables import (
    MAX_BYTES,
    NUM_BYTES,
    Row,
    Tables,
    Update,
    format_count,
    parse_count,
    parse_row,
)
from helium_agents.memo.provenance import decode_provenance
from helium_agents.memo.store import KEY_BYTES, Report

_MAX_PROBLEMS: Final = 1000


class Problems:
    """What is wrong, in words; bounded, since a wrong table is wrong a million times."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._num_more = 0

    def add(self, key: bytes, words: str) -> None:
        """Note a problem of a key."""
        self.say(f"entry {bytes(key).hex()[:16]}: {words}")

    def say(self, words: str) -> None:
        """Note a problem."""
        if len(self._said) < _MAX_PROBLEMS:
            self._said.append(words)
        else:
            self._num_more += 1

    def listed(self) -> list[str]:
        """All of them."""
        return [*self._said, *([f"and {self._num_more} more"] if self._num_more else [])]


def check(txn: lmdb.Transaction[bytes], tables: Tables) -> Report:
    """Check one state of the tables."""
    problems = Problems()
    num_entries = num_bytes = 0
    try:
        for key, record in _ascending(txn, tables.entries, "entries", problems):
            num_entries += 1
            num_bytes += _check_entry(txn, tables, key, record, problems)
        _check_orphans(txn, tables, problems)
        _check_counts(txn, tables, num_bytes, problems)
    except lmdb.Error as error:
        problems.say(f"LMDB cannot read all of it: {error}")
    return Report(num_entries, num_bytes, problems.listed())


def _ascending(
    txn: lmdb.Transaction[bytes], table: lmdb._Database, name: str, problems: Problems
) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of a table, whose keys must ascend."""
    last = b""
    for key, value in txn.cursor(db=table):
        if key <= last:
            problems.add(key, f"comes out of order in {name}")
        last = key
        yield key, value


def _check_entry(
    txn: lmdb.Transaction[bytes], tables: Tables, key: bytes, record: bytes, problems: Problems
) -> int:
    """Check what there is of an entry; the bytes it counts."""
    if len(key) != KEY_BYTES:
        problems.add(key, f"its key has {len(key)} bytes, not {KEY_BYTES}")
    entry = _decoded(record)
    if entry is None:
        problems.add(key, "its record is damaged")
    provenance = txn.get(key, db=tables.provenance) if tables.provenance else None
    if provenance is not None and decode_provenance(provenance) is None:
        problems.add(key, "its provenance is damaged")
    num_bytes = KEY_BYTES + len(record) + len(provenance or b"")
    row = _parsed(txn.get(key, db=tables.index))
    if row is None:
        problems.add(key, "it has no index row, or a damaged one")
        return num_bytes
    if row.num_bytes != num_bytes:
        problems.add(key, f"its index row says {row.num_bytes} bytes, not {num_bytes}")
    if entry is not None and (row.created_s, row.label) != (entry.created_s, entry.label):
        problems.add(key, "its index row has another time or label than its record")
    if txn.get(format_count(row.sequence), db=tables.recency) != key:
        problems.add(key, f"it has no place in the order of use under its number {row.sequence}")
    return num_bytes


def _check_orphans(txn: lmdb.Transaction[bytes], tables: Tables, problems: Problems) -> None:
    """Check that rows, places and provenance have an entry."""
    for name, table in (("index", tables.index), ("provenance", tables.provenance)):
        for key, _ in _ascending(txn, table, name, problems) if table else ():
            if txn.get(key, db=tables.entries) is None:
                problems.add(key, f"it is in {name}, but has no record")
    for number, key in _ascending(txn, tables.recency, "the order of use", problems):
        row = _parsed(txn.get(key, db=tables.index))
        if row is None or format_count(row.sequence) != number:
            problems.add(key, f"it has a place {parse_count(number)} in the order of use too many")


def _check_counts(
    txn: lmdb.Transaction[bytes], tables: Tables, num_bytes: int, problems: Problems
) -> None:
    """Check the count of live bytes and the bound."""
    counted = parse_count(txn.get(NUM_BYTES, db=tables.meta))
    if counted != num_bytes:
        problems.say(f"the count of live bytes is {counted}, but they are {num_bytes}")
    bound = txn.get(MAX_BYTES, db=tables.meta)
    if bound is not None and num_bytes > parse_count(bound):
        problems.say(f"there are {num_bytes} live bytes, above the bound of {parse_count(bound)}")


def rebuild(update: Update) -> int:
    """Make index, order of use and count again from the entries; how many damaged ones went.

    The order of use is kept where the index still knows it. Needs 200 bytes of memory per entry.
    """
    txn, tables = update.txn, update.tables
    order: list[tuple[int, float, bytes]] = []
    damaged: list[bytes] = []
    for key, record in txn.cursor(db=tables.entries):
        entry = _decoded(record)
        if entry is None or len(key) != KEY_BYTES:
            damaged.append(key)
        else:
            row = _parsed(txn.get(key, db=tables.index))
            order.append((row.sequence if row else 0, entry.created_s, key))
    for key in damaged:
        update.drop(key)
    _drop_bad_provenance(txn, tables)
    update.clear_order()
    for _, created_s, key in sorted(order):
        record = txn.get(key, b"", db=tables.entries)
        entry = decode(record)
        assert entry is not None
        num_bytes = KEY_BYTES + len(record) + len(txn.get(key, b"", db=tables.provenance))
        update.place(key, num_bytes, created_s, entry.label.encode())
    return len(damaged)


def _drop_bad_provenance(txn: lmdb.Transaction[bytes], tables: Tables) -> None:
    bad = [
        key
        for key, provenance in txn.cursor(db=tables.provenance)
        if decode_provenance(provenance) is None or txn.get(key, db=tables.entries) is None
    ]
    for key in bad:
        txn.delete(key, db=tables.provenance)


def _decoded(record: bytes) -> Entry | None:
    try:
        return decode(record)
    except ValueError:  # a whole record whose label is no text
        return None


def _parsed(value: Any) -> Row | None:
    try:
        return parse_row(value) if value else None
    except struct.error:
        return None
