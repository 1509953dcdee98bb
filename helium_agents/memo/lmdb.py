"""The persistent store: one LMDB directory, read on the caller's thread, written in groups.

What lives where: `entry` and `provenance` know what records look like, `lmdb_tables` what a
transaction changes, `writer` when one happens, `lmdb_environment` how to open a directory,
`lmdb_directory` how long it stays open, `lmdb_scan` and `lmdb_check` how to go through all of it.
This module opens late and does what the port says.

Several processes may use one directory at once, each with a store of its own; LMDB lets one write
at a time. A store that is open does not survive a fork: the child gets an error that says so, and
may open a store of its own in the same directory (`lmdb_directory` says how that is made safe). A
store that was only constructed opens after the fork as usual.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import lmdb

from helium_agents.errors import MemoError
from helium_agents.memo import lmdb_scan
from helium_agents.memo.entry import (
    Entry,
    check_bounds,
    check_key,
    check_label,
    check_time,
    decode,
    encode,
    is_expired,
    stored_bytes,
    what_fits,
)
from helium_agents.memo.lmdb_check import check, rebuild
from helium_agents.memo.lmdb_directory import TOUCH_BATCH, Directory
from helium_agents.memo.lmdb_environment import explain, probe
from helium_agents.memo.lmdb_tables import DATA_FILE, Row, Update, rows
from helium_agents.memo.provenance import decode_provenance, provenance_bytes
from helium_agents.memo.store import EntryInfo, FullEntry, Report, StoreStats
from helium_agents.memo.writer import DELETED, Writer

_MAX_VALUE_BYTES: Final = 2**31
_DELETED_AT_ONCE: Final = 4096
_FIRST_PAGE: Final = 1024
_NEXT_PAGES: Final = 2**16


class LmdbStore:
    """A directory of entries that outlives the process; a `Store`.

    Entries are evicted, least recently used first, in the transaction that would exceed the bound.
    The order of use is kept coarsely: reads are noted in memory and written along with the next
    puts, and only where an entry's place in the order is out of date. A crash forgets such notes
    and nothing else.

    The file is larger than its live bytes, 1.5 to 6 times depending on their sizes; it does not
    shrink, but freed pages are used again.

    Close it. A store that is dropped or still open when the program ends writes what is pending if
    that takes at most a second or five, and then says nothing of errors but a warning.

    Args:
        path: The directory; made with mode 0700 if missing. Prompts are in it in clear.
        max_bytes: Bound on the live bytes (keys, headers, values, provenance) of the directory,
            enforced by each write of this store. A value that alone exceeds it (or 2 GiB) is not
            kept: its key is then absent, also if it had a value before.
        ttl_s: Entries older than this many seconds are misses; `None` for no limit.
        read_only: Never write: `put` and `clear` raise, and reads do not affect eviction.
        clock: Unix time in seconds; for tests.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 4 * 2**30,
        ttl_s: float | None = None,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_bounds(max_bytes, ttl_s)
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._max_entry_bytes = min(max_bytes, _MAX_VALUE_BYTES)
        self._ttl_s = ttl_s
        self._read_only = read_only
        self._clock = clock
        self._num_corrupt = 0
        self._opening = threading.Lock()
        self._opened: Directory | None = None
        self._is_closed = False
        self._at_drop: weakref.finalize[..., LmdbStore] | None = None

    def open(self) -> None:
        """Open the directory now and not at first use, to meet its errors early.

        Raises:
            MemoError: If it cannot be opened, or is of another format.
        """
        self._use()

    def get(self, key: bytes) -> bytes | None:
        """The value, or `None`; see `Store.get`. A damaged entry is a miss, and counted."""
        check_key(key)
        opened = self._use()
        record = opened.writer.lookup(key) if opened.writer else None
        if record == DELETED:
            return None
        entry = decode(record) if record else self._read(opened, key)
        if entry is None or entry.is_expired(self._ttl_s, self._clock()):
            return None
        if record is None and opened.writer:
            opened.touched.append(key)
            if len(opened.touched) >= TOUCH_BATCH:
                opened.writer.flush()
        return entry.payload

    def put(
        self,
        key: bytes,
        value: bytes,
        *,
        label: str,
        provenance: bytes = b"",
        created_s: float | None = None,
    ) -> None:
        """Keep the value; see `Store.put`. Blocks while 64 MiB wait to be written.

        Raises:
            MemoError: If an earlier write failed (the store then takes nothing more until it is
                opened again), or the store is read-only or closed.
        """
        check_key(key)
        check_label(label)
        if created_s is None:
            created_s = self._clock()
        else:
            check_time(created_s)
        writer = self._use_writer()
        fits, provenance = what_fits(value, label, provenance, self._max_entry_bytes)
        if fits:
            writer.put(key, encode(value, label=label, created_s=created_s), provenance)
        else:
            writer.put(key, DELETED)

    def commit(self) -> Future[None]:
        """A future for everything put so far; see `Store.commit`. Takes 5 ms and one disk flush."""
        if self._opened is not None and self._use().writer:
            return self._use_writer().commit()
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def provenance(self, key: bytes) -> bytes | None:
        """What was asked; see `Store.provenance`. Damaged provenance is none, and counted."""
        check_key(key)
        opened = self._use()
        record, pending = opened.writer.lookup_provenance(key) if opened.writer else (None, b"")
        if record is not None:
            entry = decode(record)
            is_live = entry is not None and not entry.is_expired(self._ttl_s, self._clock())
            return (pending or None) if is_live else None
        found = opened.read(partial(lmdb_scan.provenance_of, key=key))
        if found is None or found[1] is None or not self._is_live(found[0]):
            return None
        provenance = decode_provenance(found[1])
        self._num_corrupt += provenance is None
        return provenance or None

    def describe(self, key: bytes) -> EntryInfo | None:
        """What is known of one entry; see `Store.describe`."""
        check_key(key)
        opened = self._use()
        record, provenance = opened.writer.lookup_provenance(key) if opened.writer else (None, b"")
        if record is None:
            found = opened.read(partial(lmdb_scan.describe, key=key))
        else:
            found = _describe_pending(key, record, provenance)
        return found if found and self._is_live(found) else None

    def entries(self, *, label: str | None = None) -> Iterator[EntryInfo]:
        """Live entries, the newest first; see `Store.entries`. One pass per 65,536 of them."""
        opened = self._settled()
        before: tuple[float, bytes] | None = None
        num_most = _FIRST_PAGE

        def is_wanted(row: Row) -> bool:
            return (label is None or row.label == label) and self._is_live(row)

        while True:
            page = opened.read(
                partial(lmdb_scan.newest, is_wanted=is_wanted, before=before, num_most=num_most)
            )
            yield from page
            if len(page) < num_most:
                return
            before, num_most = (page[-1].created_s, page[-1].key), _NEXT_PAGES

    def scan(self, *, label: str | None = None) -> Iterator[FullEntry]:
        """Live entries with all they have; see `Store.scan`. Holds 1 MiB of them at a time."""
        opened = self._settled()
        after: bytes | None = b""
        while after is not None:
            found, num_damaged, after = opened.read(partial(lmdb_scan.full, after=after))
            self._num_corrupt += num_damaged
            for entry in found:
                if (label is None or entry.label == label) and self._is_live(entry):
                    yield entry

    def delete(self, keys: Iterable[bytes]) -> int:
        """Remove entries; see `Store.delete`. One transaction for each 4,096 of them."""
        return self._remove((key, None) for key in keys)

    def prune(
        self,
        *,
        older_than_s: float | None = None,
        max_bytes: int | None = None,
        label: str | None = None,
    ) -> int:
        """Remove what is old or too much; see `Store.prune`. Other writers go on in between."""
        self._use_writer().run(lambda update: None)  # so that all that is known of use is written
        num_removed = self._remove(self._old(older_than_s, label))
        if max_bytes is not None:
            num_removed += self._remove(self._excess(max_bytes, label))
        return num_removed

    def verify(self, *, repair: bool = False) -> Report:
        """A full check, in a child process first; see `Store.verify`. Reads the file twice."""
        # First, since a damaged file may be dangerous even to open.
        if self._has_data() and (problem := probe(self.path)):
            return Report(0, 0, [f"the file cannot be read: {problem}"])
        report = self._settled().read(check)
        if repair and report.problems:
            return replace(report, num_dropped=self._use_writer().run(rebuild))
        return report

    def clear(self) -> int:
        """Remove every entry, expired ones too, and those of other processes; how many went."""
        return self._use_writer().run(Update.clear)

    def stats(self) -> StoreStats:
        """What the store holds, after a commit of what is pending. Reads the whole index."""
        opened = self._settled()
        return opened.read(
            lambda txn, tables: StoreStats.of(
                (
                    (row.label, row.num_bytes, row.created_s)
                    for row in rows(txn, tables)
                    if self._is_live(row)
                ),
                max_bytes=self._max_bytes,
                num_corrupt=self._num_corrupt,
            )
        )

    def close(self) -> None:
        """Commit what is pending and release everything; see `Store.close`.

        Raises:
            MemoError: If something could not be written and no future or put has said so.
        """
        with self._opening:
            opened, self._is_closed = self._opened, True
            if self._at_drop is not None:
                self._at_drop.detach()
            if opened is None or opened.pid != os.getpid():
                return
            self._opened = None
        opened.close()

    def _use(self) -> Directory:
        opened = self._opened
        if opened is None:
            opened = self._open()
        if opened.pid != os.getpid():
            raise MemoError(
                f"the memo in {self.path} was open when this process was forked, and cannot be "
                "used here: open another store for it after the fork"
            )
        return opened

    def _use_writer(self) -> Writer[Update]:
        writer = self._use().writer
        if writer is None:
            raise MemoError(f"the memo in {self.path} is read-only: open it with read_only=False")
        return writer

    def _settled(self) -> Directory:
        """The directory, with everything put so far in it."""
        opened = self._use()
        if opened.writer:
            opened.writer.commit().result()
        return opened

    def _open(self) -> Directory:
        with self._opening:
            if self._opened is not None:
                return self._opened
            if self._is_closed:
                raise MemoError(f"the memo in {self.path} is closed")
            if self._read_only and not self._has_data():
                raise MemoError(
                    f"there is no memo in {self.path}: check the path, or open it with "
                    "read_only=False to make one"
                )
            opened = Directory(self.path, self._max_bytes, read_only=self._read_only)
            self._at_drop = weakref.finalize(self, opened.abandon)
            self._at_drop.atexit = False  # the directories see to that themselves, with patience
            self._opened = opened
            return opened

    def _has_data(self) -> bool:
        try:
            return (self.path / DATA_FILE).is_file()
        except OSError as error:
            raise explain(self.path, error) from error

    def _read(self, opened: Directory, key: bytes) -> Entry | None:
        opened.reading.append(None)
        try:
            try:
                reading = opened.env.begin(db=opened.tables.entries, buffers=True)
            except lmdb.ReadersFullError:
                reading = opened.begin(db=opened.tables.entries, buffers=True)
            with reading as txn:
                record = txn.get(key)
                if record is None:
                    return None
                entry = decode(record)
        except lmdb.Error as error:
            raise opened.explain(error) from error
        finally:
            opened.reading.pop()
        if entry is None:
            self._num_corrupt += 1
        return entry

    def _is_live(self, entry: Row | EntryInfo | FullEntry) -> bool:
        return not is_expired(entry.created_s, self._ttl_s, self._clock())

    def _old(self, older_than_s: float | None, label: str | None) -> Iterator[tuple[bytes, float]]:
        """Keys and times of what has expired or is older than that."""
        now_s, after = self._clock(), b""
        while page := self._use().read(partial(lmdb_scan.by_key, after=after)):
            for key, row in page:
                if (label is None or row.label == label) and (
                    is_expired(row.created_s, self._ttl_s, now_s)
                    or is_expired(row.created_s, older_than_s, now_s)
                ):
                    yield key, row.created_s
            after = page[-1][0]

    def _excess(self, max_bytes: int, label: str | None) -> Iterator[tuple[bytes, float]]:
        """Keys and times of the least recently used, until the others count at most that much."""

        def is_counted(row: Row) -> bool:
            return label is None or row.label == label

        excess_bytes = -max_bytes + self._use().read(
            lambda txn, tables: sum(r.num_bytes for r in rows(txn, tables) if is_counted(r))
        )
        after = 0
        while page := self._use().read(partial(lmdb_scan.by_use, after=after)):
            for _, key, row in page:
                if excess_bytes <= 0:
                    return
                if is_counted(row):
                    yield key, row.created_s
                    excess_bytes -= row.num_bytes
            after = page[-1][0]

    def _remove(self, victims: Iterable[tuple[bytes, float | None]]) -> int:
        """Remove entries of these keys and, if given, creation times; how many there were."""
        writer, num_removed, rest = self._use_writer(), 0, iter(victims)
        while some := list(islice(rest, _DELETED_AT_ONCE)):
            for key, _ in some:
                check_key(key)
            num_removed += writer.run(partial(_delete_all, victims=some))
        return num_removed


def _delete_all(update: Update, victims: list[tuple[bytes, float | None]]) -> int:
    return sum(update.delete(*victim) for victim in victims)


def _describe_pending(key: bytes, record: bytes, provenance: bytes) -> EntryInfo | None:
    entry = decode(record)  # of what is to be deleted there is none
    if entry is None:
        return None
    num_bytes = stored_bytes(entry.payload, entry.label) + provenance_bytes(provenance)
    return EntryInfo(key, entry.label, num_bytes, entry.created_s, bool(provenance))
