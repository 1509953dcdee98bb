"""The full check of an LMDB memo.

What must hold: every record and every provenance record is whole; each entry has one index row,
which says its size, time and label; nothing has a row or provenance without an entry; the count of
live bytes is the sum of the rows, and within the bound that the last writer held.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import lmdb

from helium_agents.memo.entry import decode, decode_provenance
from helium_agents.memo.lmdb.tables import (
    MAX_BYTES,
    NUM_BYTES,
    Tables,
    Txn,
    parse_count,
    parse_row,
    records_of,
)
from helium_agents.memo.store import KEY_BYTES, EntryInfo

_MAX_PROBLEMS: Final = 1000


@dataclass(frozen=True, slots=True)
class Report:
    """What a check of a store found.

    Args:
        num_entries: Entries found, expired and damaged ones too.
        num_bytes: The bytes that they count, computed anew.
        problems: What is wrong, in words, each with the first digits of the key that it is about;
            empty for a sound store. At most 1,000, then one that says how many more.
    """

    num_entries: int
    num_bytes: int
    problems: list[str]


def check(txn: Txn, tables: Tables) -> Report:
    """Check one state of the tables."""
    found = _Check(txn, tables)
    problems = found.problems()
    said = list(islice(problems, _MAX_PROBLEMS))
    if num_more := sum(1 for _ in problems):  # a wrong table is wrong a million times
        said.append(f"and {num_more} more")
    return Report(found.num_entries, found.num_bytes, said)


@dataclass(slots=True)
class _Check:
    """A walk through the tables, which counts entries and says what is wrong."""

    _txn: Txn
    _tables: Tables
    num_entries: int = 0
    num_bytes: int = 0

    def problems(self) -> Iterator[str]:
        """What is wrong, in words."""
        try:
            for key in self._txn.cursor(db=self._tables.entries).iternext(values=False):
                yield from (f"entry {key.hex()[:16]}: {each}" for each in self._of_entry(key))
            for key, each in self._of_orphans():
                yield f"entry {key.hex()[:16]}: {each}"
            yield from self._of_counts()
        except lmdb.Error as error:
            yield f"LMDB cannot read all of it: {error}"

    def _of_entry(self, key: bytes) -> Iterator[str]:
        if len(key) != KEY_BYTES:
            yield f"its key has {len(key)} bytes, not {KEY_BYTES}"
        record, provenance = records_of(self._txn, self._tables, key)
        num_bytes = KEY_BYTES + len(record) + len(provenance)
        self.num_entries += 1
        self.num_bytes += num_bytes
        entry = decode(key, record)
        if entry is None:
            yield "its record is damaged"
        if decode_provenance(provenance) is None:
            yield "its provenance is damaged"
        row = _row_of(self._txn, self._tables, key)
        if row is None:
            yield "it has no index row, or a damaged one"
            return
        if row.num_bytes != num_bytes:
            yield f"its index row says {row.num_bytes} bytes, not {num_bytes}"
        if entry is not None and (row.created_s, row.label) != (entry.created_s, entry.label):
            yield "its index row has another time or label than its record"

    def _of_orphans(self) -> Iterator[tuple[bytes, str]]:
        tables = self._tables
        for name, table in (("index", tables.index), ("provenance", tables.provenance)):
            for key in self._txn.cursor(db=table).iternext(values=False):
                if self._txn.get(key, db=tables.entries) is None:
                    yield key, f"it is in {name}, but has no record"

    def _of_counts(self) -> Iterator[str]:
        counted = parse_count(self._txn.get(NUM_BYTES, db=self._tables.meta))
        if counted != self.num_bytes:
            yield f"the count of live bytes is {counted}, but they are {self.num_bytes}"
        bound = parse_count(self._txn.get(MAX_BYTES, db=self._tables.meta))
        if self.num_bytes > bound:
            yield f"there are {self.num_bytes} live bytes, above the bound of {bound}"


def _row_of(txn: Txn, tables: Tables, key: bytes) -> EntryInfo | None:
    value = txn.get(key, db=tables.index)
    try:
        return parse_row(key, value) if value else None
    except struct.error:
        return None
