"""The tables of an LMDB memo, and the one transaction that keeps them in agreement.

========== ====================== ==============================================
table      key                    value
========== ====================== ==============================================
`meta`     name                   `format`, the layout's version; `num_bytes`;
                                  `max_bytes`, the bound that the last writer held
`entries`  digest                 record (`memo/entry.py`)
`facts`    digest                 provenance record (`memo/provenance.py`), if any
`index`    digest                 sequence number, bytes, creation time, label
`recency`  sequence number        digest
========== ====================== ==============================================

A sequence number is drawn when an entry is written or touched, so `recency` is sorted from the
least to the most recently used. `index` repeats what selection and statistics need, in a twentieth
of the pages; both can be rebuilt from `entries`, as can `num_bytes`. All changes happen in
`Update`, in one write transaction, so the count of live bytes is true for every process that shares
the directory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import lmdb

from helium_agents.errors import MemoError
from helium_agents.memo import entry
from helium_agents.memo.store import KEY_BYTES

FORMAT_VERSION: Final = 2
DATA_FILE: Final = "data.mdb"

FORMAT: Final = b"format"
NUM_BYTES: Final = b"num_bytes"
MAX_BYTES: Final = b"max_bytes"
_OLDEST_READ: Final = 1
_NAMES: Final = (b"meta", b"entries", b"index", b"recency")
_PROVENANCE: Final = b"facts"  # as the table has been called since format 2
_INDEX: Final = struct.Struct("<QQd")
_TIME: Final = struct.Struct("<d")
_TIME_AT: Final = _INDEX.size - _TIME.size

_STALE_SHARE: Final = 4


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
    provenance: lmdb._Database | None
    """`None` in a directory of format 1 that is only read."""


def open_tables(env: lmdb.Environment, path: Path, *, read_only: bool) -> Tables:
    """Open the tables; make them in a new directory, and bring older ones to this format.

    Raises:
        MemoError: If they are of another format, or the file is not a memo.
    """
    try:
        if read_only:
            meta = env.open_db(_NAMES[0], create=False)
            with env.begin() as txn:
                version = _check_format(txn.get(FORMAT, db=meta), path)
            tables: list[Any] = [env.open_db(name, create=False) for name in _NAMES[1:]]
            tables.append(env.open_db(_PROVENANCE, create=False) if version > 1 else None)
            return Tables(meta, *tables)
        # A handle opened in a transaction is lost unless that one commits as a writer.
        with env.begin(write=True) as txn:
            is_new = txn.stat()["entries"] == 0
            meta = env.open_db(_NAMES[0], txn=txn, create=is_new)
            if is_new:
                txn.put(FORMAT, b"%d" % FORMAT_VERSION, db=meta)
            version = _check_format(txn.get(FORMAT, db=meta), path)
            if version < FORMAT_VERSION:
                _migrate(env, txn, meta)
            return Tables(
                meta, *(env.open_db(name, txn=txn) for name in (*_NAMES[1:], _PROVENANCE))
            )
    except lmdb.NotFoundError:
        raise MemoError(
            f"{path} holds an LMDB file that is not a memo: choose another directory"
        ) from None


def _migrate(env: lmdb.Environment, txn: lmdb.Transaction[bytes], meta: lmdb._Database) -> None:
    """Make format 2 of format 1: one more table. All of it in the caller's transaction."""
    env.open_db(_PROVENANCE, txn=txn)
    txn.put(FORMAT, b"%d" % FORMAT_VERSION, db=meta)


def _check_format(found: bytes | None, path: Path) -> int:
    """The version found, if it can be used."""
    if found is None or not found.isdigit():
        raise MemoError(f"{path} holds an LMDB file that is not a memo: choose another directory")
    version = int(found)
    if _OLDEST_READ <= version <= FORMAT_VERSION:
        return version
    if version > FORMAT_VERSION:
        fix = "written by a newer helium_agents: upgrade the package, or choose another directory"
    else:
        fix = (
            "written by an older helium_agents: read it with that release, or delete the "
            "directory to start afresh"
        )
    raise MemoError(f"the memo in {path} has format {version}, not {FORMAT_VERSION}; it was {fix}")


def rows(txn: lmdb.Transaction[bytes], tables: Tables) -> Iterator[Row]:
    """Every entry's index row."""
    for _, value in txn.cursor(db=tables.index):
        yield parse_row(value)


def stale_keys(txn: lmdb.Transaction[bytes], tables: Tables, keys: Iterable[bytes]) -> list[bytes]:
    """Those of the keys whose place in the order of use is out of date enough to be worth a write.

    A place is stale when a quarter as many sequence numbers were drawn since as there are entries.
    So an entry that is read all the time stays in the newest quarter, and is moved at most four
    times while the whole memo turns over once.
    """
    limit = txn.stat(tables.entries)["entries"] // _STALE_SHARE
    next_sequence = _next_sequence(txn, tables)
    found = ((key, txn.get(key, db=tables.index)) for key in keys)
    return [key for key, row in found if row and next_sequence - parse_row(row).sequence > limit]


class Update:
    """One change of the tables, inside a write transaction that the caller commits.

    Args:
        txn: The write transaction.
        tables: The tables.
    """

    def __init__(self, txn: lmdb.Transaction[bytes], tables: Tables) -> None:
        assert tables.provenance is not None, "opened for reading only"
        self.txn = txn
        self.tables = tables
        self.num_bytes = parse_count(txn.get(NUM_BYTES, db=tables.meta))
        self._next_sequence = _next_sequence(txn, tables)

    def put(self, records: Mapping[bytes, bytes], provenance: Mapping[bytes, bytes]) -> None:
        """Write records as the most recently used, replacing earlier ones and their provenance.

        Table by table and by key, so that neighbours meet the same page, each table in one call of
        LMDB: half of what one record at a time would cost.
        """
        keys = sorted(records)
        for key, _ in self.txn.cursor(db=self.tables.index).getmulti(keys):
            self.delete(key)
        index_rows: dict[bytes, bytes] = {}
        order: list[tuple[bytes, bytes]] = []
        for sequence, (key, record) in enumerate(records.items(), self._next_sequence):
            created_s, label = entry.origin(record)
            num_bytes = KEY_BYTES + len(record) + len(provenance.get(key, b""))
            index_rows[key] = _INDEX.pack(sequence, num_bytes, created_s) + label
            order.append((format_count(sequence), key))
            self.num_bytes += num_bytes
        self._next_sequence += len(records)
        self._put_all(self.tables.index, [(key, index_rows[key]) for key in keys])
        self._put_all(self.tables.recency, order, append=True)  # as in `place`
        self._put_all(self.tables.entries, [(key, records[key]) for key in keys])
        assert self.tables.provenance is not None
        kept = [(key, provenance[key]) for key in keys if key in provenance]
        self._put_all(self.tables.provenance, kept)

    def _put_all(
        self, table: lmdb._Database, items: list[tuple[bytes, bytes]], *, append: bool = False
    ) -> None:
        if items:
            self.txn.cursor(db=table).putmulti(items, append=append)

    def delete(self, key: bytes, created_s: float | None = None) -> bool:
        """Remove an entry; whether there was one.

        Args:
            key: The entry's key.
            created_s: Remove it only if it was created then, and not replaced since.
        """
        value = self.txn.get(key, db=self.tables.index)
        if value is None:
            return False
        row = parse_row(value)
        if created_s is not None and row.created_s != created_s:
            return False
        self.txn.delete(key, db=self.tables.index)
        self.drop(key)
        self.txn.delete(format_count(row.sequence), db=self.tables.recency)
        self.num_bytes -= row.num_bytes
        return True

    def drop(self, key: bytes) -> None:
        """Remove a record and its provenance, and leave the rest to the caller."""
        self.txn.delete(key, db=self.tables.entries)
        self.txn.delete(key, db=self.tables.provenance)

    def touch(self, keys: Iterable[bytes]) -> None:
        """Make entries the most recently used, where their place is stale."""
        for key in stale_keys(self.txn, self.tables, keys):
            row = parse_row(self.txn.get(key, b"", db=self.tables.index))
            self.txn.delete(format_count(row.sequence), db=self.tables.recency)
            self.num_bytes -= row.num_bytes
            self.place(key, row.num_bytes, row.created_s, row.label.encode())

    def evict(self, max_bytes: int) -> int:
        """Remove the least recently used entries until the rest fits; how many went."""
        num_evicted = 0
        while self.num_bytes > max_bytes:
            cursor = self.txn.cursor(db=self.tables.recency)
            if not cursor.first() or not self.delete(cursor.value()):
                raise MemoError(
                    "the memo's tables disagree: open it again and call verify(repair=True)"
                )
            num_evicted += 1
        return num_evicted

    def clear(self) -> int:
        """Remove every entry; how many went."""
        num_entries: int = self.txn.stat(self.tables.entries)["entries"]
        self.txn.drop(self.tables.entries, delete=False)
        self.txn.drop(cast("lmdb._Database", self.tables.provenance), delete=False)
        self.clear_order()
        return num_entries

    def clear_order(self) -> None:
        """Forget index, order of use and count, which can be made again with `place`."""
        self.txn.drop(self.tables.index, delete=False)
        self.txn.drop(self.tables.recency, delete=False)
        self._next_sequence = 1
        self.num_bytes = 0

    def place(self, key: bytes, num_bytes: int, created_s: float, label: bytes) -> None:
        """Enter a record in index, order of use and count, as the most recently used."""
        sequence = self._next_sequence
        row = _INDEX.pack(sequence, num_bytes, created_s) + label
        self.txn.put(key, row, db=self.tables.index)
        self._next_sequence += 1
        self.num_bytes += num_bytes
        # Numbers only grow: appending fills the pages and saves the search.
        self.txn.put(format_count(sequence), key, append=True, db=self.tables.recency)

    def save(self, max_bytes: int) -> None:
        """Write the count of live bytes and the bound they obey, last before the commit."""
        self.txn.put(NUM_BYTES, format_count(self.num_bytes), db=self.tables.meta)
        self.txn.put(MAX_BYTES, format_count(max_bytes), db=self.tables.meta)


def _next_sequence(txn: lmdb.Transaction[bytes], tables: Tables) -> int:
    cursor = txn.cursor(db=tables.recency)
    return parse_count(cursor.key()) + 1 if cursor.last() else 1


def parse_row(value: bytes) -> Row:
    """What an index row says."""
    sequence, num_bytes, created_s = _INDEX.unpack_from(value)
    return Row(sequence, num_bytes, created_s, value[_INDEX.size :].decode(errors="replace"))


def parse_time(value: bytes) -> float:
    """The creation time in an index row."""
    created_s: float = _TIME.unpack_from(value, _TIME_AT)[0]
    return created_s


def parse_count(value: bytes | None) -> int:
    """A count, or a sequence number."""
    return int.from_bytes(value or b"", "big")


def format_count(count: int) -> bytes:
    """A count, or a sequence number, so that bytes sort as numbers do."""
    return count.to_bytes(8, "big")
