"""The persistent store: one LMDB directory, read on the caller's thread, written in groups.

What lives where: `entry` knows what a record looks like, `lmdb_tables` what a transaction changes,
`writer` when one happens. This module owns the environment: it opens it late, reads from it, and
says in words what went wrong.

Several processes may use one directory at once, each with a store of its own; LMDB lets one write
at a time. A store that is open does not survive a fork: the child shares LMDB's lock table with its
parent, so that even *closing* the environment there can free the parent's reader slot. The child
gets an error that says so. A store that was only constructed opens after the fork as usual.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import lmdb

from helium_agents.errors import MemoError
from helium_agents.memo.entry import (
    Entry,
    check_bounds,
    check_key,
    check_label,
    decode,
    encode,
    is_expired,
    stored_bytes,
)
from helium_agents.memo.lmdb_tables import (
    DATA_FILE,
    Tables,
    Update,
    map_bytes,
    open_tables,
    rows,
    stale_keys,
)
from helium_agents.memo.store import StoreStats
from helium_agents.memo.writer import DELETED, Batch, Writer

_MAX_READERS: Final = 1024
_MAX_VALUE_BYTES: Final = 2**31
_TOUCH_BATCH: Final = 4096
_MAX_TOUCHED: Final = 16 * _TOUCH_BATCH

_FULL: Final = (
    "the file has no room left in its address range: clear() it, or open it with a larger max_bytes"
)
_FULL_DISK: Final = "its disk is full or failing: free some space, then open the store again"
_ADVICE: Final[tuple[tuple[type[Exception], str], ...]] = (
    (lmdb.MapFullError, _FULL),
    (lmdb.DiskError, _FULL_DISK),
    (lmdb.MapResizedError, "a process with a larger max_bytes grew it: open it with the same one"),
    (lmdb.ReadersFullError, f"more than {_MAX_READERS} reads at once: use fewer processes"),
    (lmdb.InvalidError, "it is not a memo or is damaged: delete the directory to start afresh"),
    (lmdb.VersionMismatchError, "another release of LMDB wrote it: choose another directory"),
    (lmdb.CorruptedError, "it is damaged: delete the directory to start afresh"),
    (lmdb.PageNotFoundError, "it is damaged: delete the directory to start afresh"),
    (FileExistsError, "it is a file: choose a directory"),
    (NotADirectoryError, "it is a file: choose a directory"),
)
_OPEN_TWICE: Final = "already open in this process"


@dataclass(slots=True)
class _Opened:
    """What a process has once it has opened the directory."""

    pid: int
    env: lmdb.Environment
    tables: Tables
    writer: Writer[Update] | None
    touched: deque[bytes] = field(default_factory=lambda: deque(maxlen=_MAX_TOUCHED))


class LmdbStore:
    """A directory of entries that outlives the process; a `Store`.

    Entries are evicted, least recently used first, in the transaction that would exceed the bound.
    The order of use is kept coarsely: reads are noted in memory and written along with the next
    puts, and only where an entry's place in the order is out of date. A crash forgets such notes
    and nothing else.

    The file is larger than its live bytes, 1.5 to 6 times depending on their sizes; it does not
    shrink, but freed pages are used again.

    Args:
        path: The directory; made with mode 0700 if missing. Prompts are in it in clear.
        max_bytes: Bound on the live bytes (keys, headers, values) of the directory, enforced by
            each write of this store. A value that alone exceeds it (or 2 GiB) is not kept: its key
            is then absent, also if it had a value before.
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
        self._ttl_s = ttl_s
        self._read_only = read_only
        self._clock = clock
        self._num_corrupt = 0
        self._opening = threading.Lock()
        self._opened: _Opened | None = None
        self._is_closed = False

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
            if len(opened.touched) >= _TOUCH_BATCH:
                opened.writer.flush()
        return entry.payload

    def put(self, key: bytes, value: bytes, *, label: str) -> None:
        """Keep the value; see `Store.put`. Blocks while 64 MiB wait to be written.

        Raises:
            MemoError: If an earlier write failed (the store then takes nothing more until it is
                opened again), or the store is read-only or closed.
        """
        check_key(key)
        check_label(label)
        writer = self._use_writer()
        if stored_bytes(value, label) > min(self._max_bytes, _MAX_VALUE_BYTES):
            writer.put(key, DELETED)
        else:
            writer.put(key, encode(value, label=label, created_s=self._clock()))

    def commit(self) -> Future[None]:
        """A future for everything put so far; see `Store.commit`. Takes 5 ms and one disk flush."""
        if self._opened is not None and self._use().writer:
            return self._use_writer().commit()
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def clear(self) -> int:
        """Remove every entry, expired ones too, and those of other processes; how many went."""
        return self._use_writer().run(Update.clear)

    def stats(self) -> StoreStats:
        """What the store holds, after a commit of what is pending. Reads the whole index."""
        opened = self._use()
        if opened.writer:
            opened.writer.commit().result()
        now_s = self._clock()
        try:
            with opened.env.begin() as txn:
                live = (
                    (row.label, row.num_bytes, row.created_s)
                    for row in rows(txn, opened.tables)
                    if not is_expired(row.created_s, self._ttl_s, now_s)
                )
                return StoreStats.of(live, max_bytes=self._max_bytes, num_corrupt=self._num_corrupt)
        except lmdb.Error as error:
            raise self._explain(error) from error

    def close(self) -> None:
        """Commit what is pending and release everything; see `Store.close`.

        Raises:
            MemoError: If something could not be written and no future or put has said so.
        """
        with self._opening:
            opened, self._is_closed = self._opened, True
            if opened is None or opened.pid != os.getpid():
                return
            self._opened = None
        try:
            if opened.writer:
                if opened.touched:
                    opened.writer.flush()
                opened.writer.close()
        finally:
            opened.env.close()

    def _use(self) -> _Opened:
        opened = self._opened
        if opened is None:
            with self._opening:
                if self._opened is None:
                    self._opened = self._open()
                opened = self._opened
        if opened.pid != os.getpid():
            raise MemoError(
                f"the memo in {self.path} was open when this process was forked, and cannot be "
                "used here: open it after the fork, or start processes with 'spawn'"
            )
        return opened

    def _use_writer(self) -> Writer[Update]:
        writer = self._use().writer
        if writer is None:
            raise MemoError(f"the memo in {self.path} is read-only: open it with read_only=False")
        return writer

    def _open(self) -> _Opened:
        if self._is_closed:
            raise MemoError(f"the memo in {self.path} is closed")
        if self._read_only and not (self.path / DATA_FILE).is_file():
            raise MemoError(
                f"there is no memo in {self.path}: check the path, or open it with read_only=False "
                "to make one"
            )
        try:
            env = self._open_environment()
            try:
                env.reader_check()
                tables = open_tables(env, self.path, read_only=self._read_only)
            except BaseException:
                env.close()
                raise
        except (lmdb.Error, OSError) as error:
            raise self._explain(error) from error
        opened = _Opened(os.getpid(), env, tables, None)
        if not self._read_only:
            opened.writer = Writer(
                f"memo writer {self.path}", lambda batch: self._write(opened, batch), self._explain
            )
        return opened

    def _open_environment(self) -> lmdb.Environment:
        if not self._read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
        # No spare transactions: one would hold a reader slot between reads, which a forked child
        # that drops this object would free.
        return lmdb.open(
            os.fspath(self.path),
            map_size=map_bytes(self.path, self._max_bytes),
            max_dbs=8,
            max_readers=_MAX_READERS,
            max_spare_txns=0,
            mode=0o600,
            readonly=self._read_only,
            create=not self._read_only,
            writemap=False,
        )

    def _read(self, opened: _Opened, key: bytes) -> Entry | None:
        try:
            with opened.env.begin(db=opened.tables.entries, buffers=True) as txn:
                record = txn.get(key)
                if record is None:
                    return None
                entry = decode(record)
        except lmdb.Error as error:
            raise self._explain(error) from error
        if entry is None:
            self._num_corrupt += 1
        return entry

    def _write(self, opened: _Opened, batch: Batch[Update]) -> list[Any]:
        """Write a batch and the order of use in one transaction; runs on the writer thread."""
        touched = dict.fromkeys(opened.touched.popleft() for _ in range(len(opened.touched)))
        if not batch:
            with opened.env.begin() as txn:
                if not stale_keys(txn, opened.tables, touched):
                    return []
        with opened.env.begin(write=True) as txn:
            update = Update(txn, opened.tables)
            update.touch(touched)
            for key, record in batch.records.items():
                if record == DELETED:
                    update.delete(key)
                else:
                    update.put(key, record)
            results = [job(update) for job, _ in batch.jobs]
            update.evict(self._max_bytes)
            update.save()
        return results

    def _explain(self, error: BaseException) -> MemoError:
        """The error in words: what happened, where, and what to do."""
        if isinstance(error, MemoError):
            return error
        if _OPEN_TWICE in str(error):
            advice = "use one store for all of it (LMDB allows no second one)"
        elif getattr(error, "code", None) == errno.EIO:
            advice = _FULL_DISK  # what LMDB says of a write that the disk cut short
        else:
            found = (advice for kind, advice in _ADVICE if isinstance(error, kind))
            advice = next(found, "check that the directory is writable and its disk has room")
        return MemoError(f"the memo in {self.path} failed ({error}): {advice}")
