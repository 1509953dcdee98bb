"""The tables of an LMDB memo, and the one transaction that keeps them in agreement.

========== ====================== ==============================================
table      key                    value
========== ====================== ==============================================
`meta`     name                   `format`, the layout's version; `num_bytes`;
                                  `max_bytes`, the bound that the last writer held;
                                  `num_uses`, how many writes and uses were noted
`entries`  digest                 record (`memo/entry.py`)
`facts`    digest                 provenance record, if any
`index`    digest                 number of its last use, bytes, creation time, label
`profiles` digest of a workflow   what was learned of it; counts against no bound, and is not
                                  there where only older versions wrote
========== ====================== ==============================================

Uses are numbered, so that entries can be compared by their last. `index` has what selection,
eviction and statistics need, in a twentieth of the pages. All changes happen in `Update`, in one
write transaction, so the count of live bytes is true for every process that shares the directory.

Digests are evenly spread, so neighbours in `index` are entries drawn at random: eviction looks at
some and removes those that its policy names first. An order of all would cost each write a table.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias

import lmdb

from helium_agents.errors import MemoError
from helium_agents.memo import entry
from helium_agents.memo.eviction import EvictionPolicy, first_to_go
from helium_agents.memo.store import KEY_BYTES, EntryInfo

FORMAT_VERSION: Final = 2
DATA_FILE: Final = "data.mdb"

FORMAT: Final = b"format"
NUM_BYTES: Final = b"num_bytes"
MAX_BYTES: Final = b"max_bytes"
_NUM_USES: Final = b"num_uses"
_META: Final = b"meta"
_OTHERS: Final = (b"entries", b"facts", b"index")
_PROFILES: Final = b"profiles"
_INDEX: Final = struct.Struct("<QQd")

_STALE_SHARE: Final = 4
_SAMPLE: Final = 128
_MOST_OF_A_SAMPLE: Final = 8  # so they are of the sixteenth that goes first, mostly
_NOT_A_MEMO: Final = "{} holds an LMDB file that is not a memo: choose another directory"

Txn: TypeAlias = "lmdb.Transaction[bytes]"

Records: TypeAlias = tuple[bytes, bytes]
"""An entry's record, and that of its provenance, which is empty where there is none."""

DELETED: Final[Records] = (b"", b"")
"""The records of a key that is to be removed; no encoded entry is empty."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Handles of the open tables."""

    profiles: lmdb._Database | None
    meta: lmdb._Database
    entries: lmdb._Database
    provenance: lmdb._Database
    index: lmdb._Database


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
            others = [env.open_db(name, create=False) for name in _OTHERS]
            return Tables(_profiles_to_read(env), meta, *others)
        # A handle opened in a transaction is lost unless that one commits as a writer.
        with env.begin(write=True) as txn:
            is_new = txn.stat()["entries"] == 0
            meta = env.open_db(_META, txn=txn, create=is_new)
            if is_new:
                txn.put(FORMAT, b"%d" % FORMAT_VERSION, db=meta)
            _check_format(txn.get(FORMAT, db=meta), path)
            others = [env.open_db(name, txn=txn, create=is_new) for name in _OTHERS]
            return Tables(env.open_db(_PROFILES, txn=txn), meta, *others)
    except lmdb.NotFoundError:
        raise MemoError(_NOT_A_MEMO.format(path)) from None


def _profiles_to_read(env: lmdb.Environment) -> lmdb._Database | None:
    try:
        return env.open_db(_PROFILES, create=False)
    except lmdb.NotFoundError:
        return None


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
    """What the index says of every entry, by key; without rows that were cut off."""
    index = txn.cursor(db=tables.index)
    return (parse_row(key, value) for key, value in index if len(value) >= _INDEX.size)


def records_of(txn: Txn, tables: Tables, key: bytes) -> Records:
    """An entry's records; `DELETED` where there is none."""
    return txn.get(key, b"", db=tables.entries), txn.get(key, b"", db=tables.provenance)


def profile_of(txn: Txn, tables: Tables, key: bytes) -> bytes | None:
    """What was learned of a workflow, if anything."""
    return None if tables.profiles is None else txn.get(key, db=tables.profiles)


def all_profiles(txn: Txn, tables: Tables) -> dict[bytes, bytes]:
    """What was learned of every workflow, by key."""
    return {} if tables.profiles is None else dict(txn.cursor(db=tables.profiles))


class Update:
    """One change of the tables, inside a write transaction that the caller commits."""

    def __init__(self, txn: Txn, tables: Tables) -> None:
        self.txn = txn
        self.tables = tables
        self.num_bytes = parse_count(txn.get(NUM_BYTES, db=tables.meta))
        counted = txn.get(_NUM_USES, db=tables.meta)
        if counted is None:  # a new memo, or one of before there was this count
            self._num_uses = max((row.last_use for row in rows(txn, tables)), default=0)
        else:
            self._num_uses = parse_count(counted)

    def put(self, records: Mapping[bytes, Records]) -> None:
        """Write entries as the most recently used, replacing earlier ones; remove the `DELETED`.

        Table by table and by key, so that neighbours meet the same page, each table in one call of
        LMDB: half of what one record at a time would cost.
        """
        keys = sorted(records)
        self.delete([key for key, _ in self.txn.cursor(db=self.tables.index).getmulti(keys)])
        index_rows: dict[bytes, bytes] = {}
        for key, (record, provenance) in records.items():
            if record:
                created_s, label = entry.origin(record)
                num_bytes = KEY_BYTES + len(record) + len(provenance)
                index_rows[key] = self._new_row(num_bytes, created_s, label)
        kept = [key for key in keys if key in index_rows]
        provenance_rows = [(key, records[key][1]) for key in kept if records[key][1]]
        cursor, tables = self.txn.cursor, self.tables
        cursor(db=tables.index).putmulti([(key, index_rows[key]) for key in kept])
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
                self.txn.delete(key, db=self.tables.entries)
                self.txn.delete(key, db=self.tables.provenance)
                self.num_bytes -= row.num_bytes
                num_removed += 1
        return num_removed

    def put_profile(self, key: bytes, data: bytes) -> None:
        """Keep what was learned of a workflow, or forget it where that is empty."""
        assert self.tables.profiles is not None, "open for writing"
        if data:
            self.txn.put(key, data, db=self.tables.profiles)
        else:
            self.txn.delete(key, db=self.tables.profiles)

    def touch(self, keys: Iterable[bytes]) -> None:
        """Note that entries were used, where what is noted is out of date enough.

        That is, where a quarter as many uses were counted since as there are entries. So an entry
        that is read all the time stays in the newest quarter, and is written at most four times
        while the whole memo turns over once.
        """
        limit = self.txn.stat(self.tables.entries)["entries"] // _STALE_SHARE
        for key in keys:
            value = self.txn.get(key, db=self.tables.index)
            if value is None:
                continue
            row = parse_row(key, value)
            if self._num_uses - row.last_use >= limit:
                self.num_bytes -= row.num_bytes
                used = self._new_row(row.num_bytes, row.created_s, row.label.encode())
                self.txn.put(key, used, db=self.tables.index)

    def evict(self, max_bytes: int, policy: EvictionPolicy) -> None:
        """Remove entries until the rest fits: of a few, exactly those that go first."""
        while (excess_bytes := self.num_bytes - max_bytes) > 0:
            sample = self._sample()
            doomed = first_to_go(sample, excess_bytes, policy)
            most = _MOST_OF_A_SAMPLE if len(sample) == _SAMPLE else None
            if not self.delete(islice(doomed, most)):
                raise MemoError(
                    "the memo's tables disagree: export what is whole, and delete the directory"
                )

    def _sample(self) -> list[EntryInfo]:
        """What the index says of some entries; of all where there are few."""
        cursor = self.txn.cursor(db=self.tables.index)
        found: dict[bytes, bytes] = {}
        if cursor.set_range(os.urandom(KEY_BYTES)):  # not by `random`: its draws are the program's
            found.update(islice(cursor, _SAMPLE))
        if len(found) < _SAMPLE and cursor.first():
            found.update(islice(cursor, _SAMPLE - len(found)))
        return [parse_row(key, value) for key, value in found.items()]

    def prune(
        self,
        is_old: Callable[[EntryInfo], bool],
        max_bytes: int | None,
        among: Collection[bytes] | None,
        policy: EvictionPolicy,
    ) -> int:
        """Remove what is old, then of the rest what is too much; how many went."""
        if max_bytes == 0 and among is None:
            return self._clear()
        mine = [row for row in rows(self.txn, self.tables) if among is None or row.key in among]
        doomed = [row.key for row in mine if is_old(row)]
        if max_bytes is not None:
            rest = [row for row in mine if not is_old(row)]
            excess_bytes = sum(row.num_bytes for row in rest) - max_bytes
            doomed += first_to_go(rest, excess_bytes, policy)
        return self.delete(doomed)

    def _clear(self) -> int:
        num_entries: int = self.txn.stat(self.tables.entries)["entries"]
        for table in (self.tables.entries, self.tables.provenance, self.tables.index):
            self.txn.drop(table, delete=False)
        self.num_bytes = 0
        return num_entries

    def _new_row(self, num_bytes: int, created_s: float, label: bytes) -> bytes:
        self._num_uses += 1
        self.num_bytes += num_bytes
        return _INDEX.pack(self._num_uses, num_bytes, created_s) + label

    def save(self, max_bytes: int) -> None:
        """Write the counts, and the bound that the live bytes obey, last before the commit."""
        counts = {NUM_BYTES: self.num_bytes, MAX_BYTES: max_bytes, _NUM_USES: self._num_uses}
        for name, count in counts.items():
            value = format_count(count)
            if self.txn.get(name, db=self.tables.meta) != value:  # else nothing need be committed
                self.txn.put(name, value, db=self.tables.meta)


def parse_row(key: bytes, value: bytes) -> EntryInfo:
    """What an index row says."""
    last_use, num_bytes, created_s = _INDEX.unpack_from(value)
    label = value[_INDEX.size :].decode(errors="replace")
    return EntryInfo(key, label, num_bytes, created_s, last_use)


def parse_count(value: bytes | None) -> int:
    """A count that is stored."""
    return int.from_bytes(value or b"", "big")


def format_count(count: int) -> bytes:
    """A count to be stored."""
    return count.to_bytes(8, "big")
