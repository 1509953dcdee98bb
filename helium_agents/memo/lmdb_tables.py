"""The tables of an LMDB memo, and the one transaction that keeps them in agreement.

========== ====================== ==============================================
table      key                    value
========== ====================== ==============================================
`meta`     name                   `format`, the layout's version; `num_bytes`;
                                  `max_bytes`, the bound that the last writer held
`entries`  digest                 record (`memo/entry.py`)
`facts`    digest                 provenance record, if any
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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final, TypeAlias

import lmdb

from helium_agents.errors import MemoError
from helium_agents.memo import entry
from helium_agents.memo.store import KEY_BYTES, EntryInfo

FORMAT_VERSION: Final = 2
DATA_FILE: Final = "data.mdb"

FORMAT: Final = b"format"
NUM_BYTES: Final = b"num_bytes"
MAX_BYTES: Final = b"max_bytes"
_META: Final = b"meta"
_OTHERS: Final = (b"entries", b"facts", b"index", b"recency")
_INDEX: Final = struct.Struct("<QQd")

_STALE_SHARE: Final = 4
_NOT_A_MEMO: Final = "{} holds an LMDB file that is not a memo: choose another directory"

Txn: TypeAlias = "lmdb.Transaction[bytes]"

Records: TypeAlias = tuple[bytes, bytes]
"""An entry's record, and that of its provenance, which is empty where there is none."""

DELETED: Final[Records] = (b"", b"")
"""The records of a key that is to be removed; no encoded entry is empty."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Handles of the open tables."""

    meta: lmdb._Database
    entries: lmdb._Database
    provenance: lmdb._Database
    index: lmdb._Database
    recency: lmdb._Database


def open_tables(env: lmdb.Environment, path: Path, *, read_only: bool) -> Tables:
    """Open the tables; make them in a new directory.

    Raises:
        MemoError: If they are of another format, or the file is not a memo.
    """
    try:
        if read_only:
            meta = env.open_db(_META, create=False)
            with env.begin() as txn:
                _check_format(txn.get(FORMAT, db=meta), path)
            return Tables(meta, *(env.open_db(name, create=False) for name in _OTHERS))
        # A handle opened in a transaction is lost unless that one commits as a writer.
        with env.begin(write=True) as txn:
            is_new = txn.stat()["entries"] == 0
            meta = env.open_db(_META, txn=txn, create=is_new)
            if is_new:
                txn.put(FORMAT, b"%d" % FORMAT_VERSION, db=meta)
            _check_format(txn.get(FORMAT, db=meta), path)
            return Tables(meta, *(env.open_db(name, txn=txn, create=is_new) for name in _OTHERS))
    except lmdb.NotFoundError:
        raise MemoError(_NOT_A_MEMO.format(path)) from None


def _check_format(found: bytes | None, path: Path) -> None:
    if found is None or not found.isdigit():
        raise MemoError(_NOT_A_MEMO.format(path))
    if (version := int(found)) != FORMAT_VERSION:
        fix = "a newer helium_agents: upgrade the package, or choose another directory"
        if version < FORMAT_VERSION:
            fix = "an older helium_agents: delete the directory to start afresh"
        raise MemoError(
            f"the memo in {path} has format {version}, not {FORMAT_VERSION}: written by {fix}"
        )


def rows(txn: Txn, tables: Tables) -> Iterator[EntryInfo]:
    """What the index says of every entry, by key."""
    return (parse_row(key, value) for key, value in txn.cursor(db=tables.index))


def records_of(txn: Txn, tables: Tables, key: bytes) -> Records:
    """An entry's records; `DELETED` where there is none."""
    return txn.get(key, b"", db=tables.entries), txn.get(key, b"", db=tables.provenance)


class Update:
    """One change of the tables, inside a write transaction that the caller commits.

    Args:
        txn: The write transaction.
        tables: The tables.
    """

    def __init__(self, txn: Txn, tables: Tables) -> None:
        self.txn = txn
        self.tables = tables
        self.num_bytes = parse_count(txn.get(NUM_BYTES, db=tables.meta))
        cursor = txn.cursor(db=tables.recency)
        self._next_sequence = parse_count(cursor.key()) + 1 if cursor.last() else 1

    def put(self, records: Mapping[bytes, Records]) -> None:
        """Write entries as the most recently used, replacing earlier ones; remove the `DELETED`.

        Table by table and by key, so that neighbours meet the same page, each table in one call of
        LMDB: half of what one record at a time would cost.
        """
        keys = sorted(records)
        self.delete([key for key, _ in self.txn.cursor(db=self.tables.index).getmulti(keys)])
        index_rows: dict[bytes, bytes] = {}
        order: list[tuple[bytes, bytes]] = []
        for key, (record, provenance) in records.items():
            if not record:
                continue
            created_s, label = entry.origin(record)
            num_bytes = KEY_BYTES + len(record) + len(provenance)
            index_rows[key] = _INDEX.pack(self._next_sequence, num_bytes, created_s) + label
            order.append((format_count(self._next_sequence), key))
            self._next_sequence += 1
            self.num_bytes += num_bytes
        kept = [key for key in keys if key in index_rows]
        provenance_rows = [(key, records[key][1]) for key in kept if records[key][1]]
        cursor, tables = self.txn.cursor, self.tables
        cursor(db=tables.index).putmulti([(key, index_rows[key]) for key in kept])
        cursor(db=tables.recency).putmulti(order, append=True)  # as in `place`
        cursor(db=tables.entries).putmulti([(key, records[key][0]) for key in kept])
        cursor(db=tables.provenance).putmulti(provenance_rows)

    def delete(self, keys: Iterable[bytes]) -> int:
        """Remove entries; how many of the keys there were."""
        num_removed = 0
        for key in keys:
            value = self.txn.get(key, db=self.tables.index)
            if value is not None:
                row = parse_row(key, value)
                self.txn.delete(key, db=self.tables.index)
                self.txn.delete(format_count(row.last_use), db=self.tables.recency)
                self.txn.delete(key, db=self.tables.entries)
                self.txn.delete(key, db=self.tables.provenance)
                self.num_bytes -= row.num_bytes
                num_removed += 1
        return num_removed

    def touch(self, keys: Iterable[bytes]) -> None:
        """Make entries the most recently used, where their place is out of date enough.

        That is, where a quarter as many sequence numbers were drawn since as there are entries. So
        an entry that is read all the time stays in the newest quarter, and is moved at most four
        times while the whole memo turns over once.
        """
        limit = self.txn.stat(self.tables.entries)["entries"] // _STALE_SHARE
        for key in keys:
            value = self.txn.get(key, db=self.tables.index)
            if value is None:
                continue
            row = parse_row(key, value)
            if self._next_sequence - row.last_use > limit:
                self.txn.delete(format_count(row.last_use), db=self.tables.recency)
                self.num_bytes -= row.num_bytes
                self.place(key, row.num_bytes, row.created_s, row.label.encode())

    def evict(self, max_bytes: int) -> None:
        """Remove the least recently used entries until the rest fits."""
        cursor = self.txn.cursor(db=self.tables.recency)
        while self.num_bytes > max_bytes:
            if not cursor.first() or not self.delete([cursor.value()]):
                raise MemoError(
                    "the memo's tables disagree: open it again and call verify(repair=True)"
                )

    def prune(
        self,
        is_old: Callable[[EntryInfo], bool],
        max_bytes: int | None,
        among: Collection[bytes] | None,
    ) -> int:
        """Remove what is old, then the least recently used that are too much; how many went."""
        mine = [row for row in rows(self.txn, self.tables) if among is None or row.key in among]
        doomed = [row.key for row in mine if is_old(row)]
        if max_bytes is not None:
            rest = sorted((row for row in mine if not is_old(row)), key=attrgetter("last_use"))
            excess_bytes = sum(row.num_bytes for row in rest) - max_bytes
            for row in rest:
                if excess_bytes <= 0:
                    break
                doomed.append(row.key)
                excess_bytes -= row.num_bytes
        return self.delete(doomed)

    def clear(self) -> int:
        """Remove every entry; how many went."""
        num_entries: int = self.txn.stat(self.tables.entries)["entries"]
        self.txn.drop(self.tables.entries, delete=False)
        self.txn.drop(self.tables.provenance, delete=False)
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
        for name, count in ((NUM_BYTES, self.num_bytes), (MAX_BYTES, max_bytes)):
            value = format_count(count)
            if self.txn.get(name, db=self.tables.meta) != value:  # else nothing need be committed
                self.txn.put(name, value, db=self.tables.meta)


def parse_row(key: bytes, value: bytes) -> EntryInfo:
    """What an index row says."""
    sequence, num_bytes, created_s = _INDEX.unpack_from(value)
    label = value[_INDEX.size :].decode(errors="replace")
    return EntryInfo(key, label, num_bytes, created_s, sequence)


def parse_count(value: bytes | None) -> int:
    """A count, or a sequence number."""
    return int.from_bytes(value or b"", "big")


def format_count(count: int) -> bytes:
    """A count, or a sequence number, so that bytes sort as numbers do."""
    return count.to_bytes(8, "big")
