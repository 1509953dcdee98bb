"""The tables of an LMDB memo, and the one transaction that keeps them in agreement.

========== ====================== ==============================================
table      key                    value
========== ====================== ==============================================
`meta`     name                   `format`, the layout's version; `num_bytes`
`entries`  digest                 record (`memo/entry.py`)
`index`    digest                 sequence number, bytes, creation time, label
`recency`  sequence number        digest
========== ====================== ==============================================

A sequence number is drawn when an entry is written or touched, so `recency` is sorted from the
least to the most recently used. `index` repeats what selection and statistics need, in a twentieth
of the pages; both can be rebuilt from `entries`. All changes happen in `Update`, in one write
transaction, so the count of live bytes is true for every process that shares the directory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import lmdb

from helium_agents.errors import MemoError
from helium_agents.memo import entry
from helium_agents.memo.store import KEY_BYTES

FORMAT_VERSION: Final = 1
DATA_FILE: Final = "data.mdb"

_FORMAT: Final = b"format"
_NUM_BYTES: Final = b"num_bytes"
_NAMES: Final = (b"meta", b"entries", b"index", b"recency")
_COUNT: Final = struct.Struct(">Q")
_INDEX: Final = struct.Struct("<QQd")

_STALE_SHARE: Final = 4
_GIB: Final = 2**30


class Row(NamedTuple):
    """What the index says of an entry."""

    sequence: int
    num_bytes: int
    created_s: float
    label: str


@dataclass(frozen=True, slots=True)
class Tables:
    """Handles of the open tables."""

    meta: lmdb._Database
    entries: lmdb._Database
    index: lmdb._Database
    recency: lmdb._Database


def map_bytes(path: Path, max_bytes: int) -> int:
    """The size of the address range for the file, which is sparse and never resized.

    Sixteen times the bound, since address space is free and running out of it is not. A file was
    seen to grow to 1.5 times the bound with entries of 100 kB, to 4 times with 1 kB, to 6 times
    with 10 bytes (index rows, pages half filled, copies that a transaction writes before it
    frees). At least 16 GiB, so that processes with other bounds can share the directory; and room
    above what an existing file already has, without which not even an eviction could be written.
    """
    data = path / DATA_FILE
    used_bytes = data.stat().st_size if data.exists() else 0
    size = max(16 * max_bytes + _GIB, used_bytes + _GIB, 16 * _GIB)
    return -(-size // 2**16) * 2**16


def open_tables(env: lmdb.Environment, path: Path, *, read_only: bool) -> Tables:
    """Open the tables, and make them in a new directory.

    Raises:
        MemoError: If they are of another format, or the file is not a memo.
    """
    try:
        if read_only:
            meta = env.open_db(_NAMES[0], create=False)
            with env.begin() as txn:
                _check_format(txn.get(_FORMAT, db=meta), path)
            return Tables(meta, *(env.open_db(name, create=False) for name in _NAMES[1:]))
        # A handle opened in a transaction is lost unless that one commits as a writer.
        with env.begin(write=True) as txn:
            is_new = txn.stat()["entries"] == 0
            meta = env.open_db(_NAMES[0], txn=txn, create=is_new)
            if is_new:
                txn.put(_FORMAT, b"%d" % FORMAT_VERSION, db=meta)
            _check_format(txn.get(_FORMAT, db=meta), path)
            return Tables(meta, *(env.open_db(name, txn=txn) for name in _NAMES[1:]))
    except lmdb.NotFoundError:
        raise MemoError(
            f"{path} holds an LMDB file that is not a memo: choose another directory"
        ) from None


def _check_format(found: bytes | None, path: Path) -> None:
    if found == b"%d" % FORMAT_VERSION:
        return
    if found is None or not found.isdigit():
        raise MemoError(f"{path} holds an LMDB file that is not a memo: choose another directory")
    if int(found) > FORMAT_VERSION:
        fix = "written by a newer helium_agents: upgrade the package, or choose another directory"
    else:
        fix = (
            "written by an older helium_agents: read it with that release, or delete the "
            "directory to start afresh"
        )
    raise MemoError(
        f"the memo in {path} has format {int(found)}, not {FORMAT_VERSION}; it was {fix}"
    )


def rows(txn: lmdb.Transaction[bytes], tables: Tables) -> Iterator[Row]:
    """Every entry's index row."""
    for _, value in txn.cursor(db=tables.index):
        yield _row(value)


def stale_keys(txn: lmdb.Transaction[bytes], tables: Tables, keys: Iterable[bytes]) -> list[bytes]:
    """Those of the keys whose place in the order of use is out of date enough to be worth a write.

    A place is stale when a quarter as many sequence numbers were drawn since as there are entries.
    So an entry that is read all the time stays in the newest quarter, and is moved at most four
    times while the whole memo turns over once.
    """
    limit = txn.stat(tables.entries)["entries"] // _STALE_SHARE
    next_sequence = _next_sequence(txn, tables)
    found = ((key, txn.get(key, db=tables.index)) for key in keys)
    return [key for key, row in found if row and next_sequence - _row(row).sequence > limit]


class Update:
    """One change of the tables, inside a write transaction that the caller commits.

    Args:
        txn: The write transaction.
        tables: The tables.
    """

    def __init__(self, txn: lmdb.Transaction[bytes], tables: Tables) -> None:
        self._txn = txn
        self._tables = tables
        self._next_sequence = _next_sequence(txn, tables)
        stored = txn.get(_NUM_BYTES, db=tables.meta)
        self.num_bytes: int = _COUNT.unpack(stored)[0] if stored else 0

    def put(self, key: bytes, record: bytes) -> None:
        """Write a record as the most recently used, replacing an earlier one."""
        self.delete(key)
        created_s, label = entry.origin(record)
        num_bytes = KEY_BYTES + len(record)
        self._txn.put(key, record, db=self._tables.entries)
        self._place(key, num_bytes, created_s, label)
        self.num_bytes += num_bytes

    def delete(self, key: bytes) -> bool:
        """Remove an entry; whether there was one."""
        value = self._txn.pop(key, db=self._tables.index)
        if value is None:
            return False
        row = _row(value)
        self._txn.delete(key, db=self._tables.entries)
        self._txn.delete(_COUNT.pack(row.sequence), db=self._tables.recency)
        self.num_bytes -= row.num_bytes
        return True

    def touch(self, keys: Iterable[bytes]) -> None:
        """Make entries the most recently used, where their place is stale."""
        for key in stale_keys(self._txn, self._tables, keys):
            row = _row(self._txn.get(key, b"", db=self._tables.index))
            self._txn.delete(_COUNT.pack(row.sequence), db=self._tables.recency)
            self._place(key, row.num_bytes, row.created_s, row.label.encode())

    def evict(self, max_bytes: int) -> int:
        """Remove the least recently used entries until the rest fits; how many went."""
        num_evicted = 0
        while self.num_bytes > max_bytes:
            cursor = self._txn.cursor(db=self._tables.recency)
            if not cursor.first() or not self.delete(cursor.value()):
                raise MemoError("the memo's tables disagree: clear() it to start afresh")
            num_evicted += 1
        return num_evicted

    def clear(self) -> int:
        """Remove every entry; how many went."""
        num_entries: int = self._txn.stat(self._tables.entries)["entries"]
        for table in (self._tables.entries, self._tables.index, self._tables.recency):
            self._txn.drop(table, delete=False)
        self.num_bytes = 0
        return num_entries

    def save(self) -> None:
        """Write the count of live bytes; the last thing before the commit."""
        self._txn.put(_NUM_BYTES, _COUNT.pack(self.num_bytes), db=self._tables.meta)

    def _place(self, key: bytes, num_bytes: int, created_s: float, label: bytes) -> None:
        sequence = self._next_sequence
        self._next_sequence += 1
        row = _INDEX.pack(sequence, num_bytes, created_s) + label
        self._txn.put(key, row, db=self._tables.index)
        # Numbers only grow: appending fills the pages and saves the search.
        self._txn.put(_COUNT.pack(sequence), key, append=True, db=self._tables.recency)


def _next_sequence(txn: lmdb.Transaction[bytes], tables: Tables) -> int:
    cursor = txn.cursor(db=tables.recency)
    last: int = _COUNT.unpack(cursor.key())[0] if cursor.last() else 0
    return last + 1


def _row(value: bytes) -> Row:
    sequence, num_bytes, created_s = _INDEX.unpack_from(value)
    return Row(sequence, num_bytes, created_s, value[_INDEX.size :].decode())
