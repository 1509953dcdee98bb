"""The persistent store: one LMDB directory, read on the caller's thread, written in groups.

What lives where: `entry` knows what records look like, `tables` what a transaction changes,
`writer` when one happens, `environment` how to open a directory, `directory` how long it
stays open, `check` what must hold in it. This module opens late and does what the port says.

Several processes may use one directory at once, each with a store of its own; LMDB lets one write
at a time. A store that is open does not survive a fork: the child gets an error that says so, and
may open a store of its own. One that was only constructed opens after the fork as usual.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Collection
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Final

from helium_agents.errors import MemoError
from helium_agents.memo.entry import (
    check_bounds,
    check_key,
    check_put,
    decode,
    encode,
    encode_provenance,
    entry_bytes,
    is_expired,
)
from helium_agents.memo.eviction import EvictionPolicy, least_recently_used
from helium_agents.memo.lmdb.check import Report, check
from helium_agents.memo.lmdb.directory import Directory
from helium_agents.memo.lmdb.environment import probe
from helium_agents.memo.lmdb.tables import (
    DELETED,
    Records,
    all_profiles,
    profile_of,
    records_of,
    rows,
)
from helium_agents.memo.lmdb.writer import Writer
from helium_agents.memo.store import Entry, EntryInfo, StoreStats

_MAX_VALUE_BYTES: Final = 2**31


class LmdbStore:
    """A directory of entries that outlives the process; a `BrowsableStore`.

    Entries are evicted in the transaction that would exceed the bound: by default what was used
    longest ago, exactly where there are few, and otherwise of some drawn at random. Use is noted
    coarsely: the last 65,536 reads are kept in memory and written along with the next puts or at
    the end, and only where what is noted of an entry is out of date. A crash forgets such notes
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
        read_only: Never write: `put` and `prune` raise, and reads do not affect eviction.
        eviction: Says of an entry how long it should stay, compared with others: those with the
            least value go first. It is called on the writer's thread, and an error of it is one of
            the store. See `helium_agents.memo.eviction`.
        clock: Unix time in seconds; for tests.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 4 * 2**30,
        ttl_s: float | None = None,
        read_only: bool = False,
        eviction: EvictionPolicy = least_recently_used,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_bounds(max_bytes, ttl_s)
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._max_entry_bytes = min(max_bytes, _MAX_VALUE_BYTES)
        self._ttl_s = ttl_s
        self._read_only = read_only
        self._eviction = eviction
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
        entry = self._find(key, lambda txn, tables: (txn.get(key, b"", db=tables.entries), b""))
        if entry is None:
            return None
        self._use().touched.append(key)
        return entry.value

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
        created_s = self._clock() if created_s is None else created_s
        check_put(key, label, created_s)
        writer = self._use_writer()
        if entry_bytes(value, label, provenance) > self._max_entry_bytes:
            provenance = b""
            if entry_bytes(value, label) > self._max_entry_bytes:
                writer.put(key, DELETED)
                return
        record = encode(value, label=label, created_s=created_s)
        writer.put(key, (record, encode_provenance(provenance)))

    def commit(self) -> Future[None]:
        """A future for everything put so far; see `Store.commit`. Takes 5 ms and one disk flush."""
        if self._opened is not None and (writer := self._use().writer):
            return writer.commit()
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def profile(self, key: bytes) -> bytes | None:
        """What was learned of a workflow, once it is durable; see `KeepsProfiles.profile`."""
        check_key(key)
        return self._use().read(partial(profile_of, key=key))

    def put_profile(self, key: bytes, data: bytes) -> None:
        """Keep or forget it; see `KeepsProfiles.put_profile`.

        Raises:
            MemoError: As for `put`.
        """
        check_key(key)
        self._use_writer().run_later(lambda update: update.put_profile(key, data))

    def profiles(self) -> dict[bytes, bytes]:
        """All of them, by key, after a commit of what is pending."""
        return self._settled().read(all_profiles)

    def find(self, key: bytes) -> Entry | None:
        """All of an entry; see `BrowsableStore.find`. Damaged provenance is none."""
        return self._find(key, partial(records_of, key=key))

    def entries(self) -> list[EntryInfo]:
        """Live entries, after a commit of what is pending; see `BrowsableStore.entries`."""
        found = self._settled().read(
            lambda txn, tables: [row for row in rows(txn, tables) if not self._is_expired(row)]
        )
        return sorted(found, key=lambda entry: (entry.created_s, entry.key), reverse=True)

    def prune(
        self,
        *,
        older_than_s: float | None = None,
        max_bytes: int | None = None,
        among: Collection[bytes] | None = None,
    ) -> int:
        """Remove expired entries, then old ones, then those that eviction takes; how many went.

        Args:
            older_than_s: Remove what was put longer ago than this. As with a time to live, an
                entry from as far in the future counts as old.
            max_bytes: Then evict until the rest counts at most this many bytes; 0 removes all.
            among: Only entries with these keys go, and only they count.
        """
        now_s = self._clock()

        def is_old(entry: EntryInfo) -> bool:
            return self._is_expired(entry) or is_expired(entry.created_s, older_than_s, now_s)

        return self._use_writer().run(
            lambda update: update.prune(is_old, max_bytes, among, self._eviction)
        )

    def verify(self) -> Report:
        """Check everything that can be checked; damage is described, not raised.

        Reads the file twice, first in a child process, since a damaged file may be dangerous even
        to open.
        """
        if problem := probe(self.path):
            return Report(0, 0, [f"the file cannot be read: {problem}"])
        return self._settled().read(check)

    def stats(self) -> StoreStats:
        """What the store holds, after a commit of what is pending. Reads the whole index."""
        return self._settled().read(
            lambda txn, tables: StoreStats.of(
                (row for row in rows(txn, tables) if not self._is_expired(row)),
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

    def _find(self, key: bytes, query: Callable[..., Records]) -> Entry | None:
        """What is pending under a key, or else what a query reads, unless it has expired."""
        check_key(key)
        opened = self._use()
        records = (opened.writer.lookup(key) if opened.writer else None) or opened.read(query)
        entry = decode(key, *records)
        if entry is None:
            self._num_corrupt += records != DELETED
            return None
        return None if self._is_expired(entry) else entry

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

    def _use_writer(self) -> Writer:
        writer = self._use().writer
        if writer is None:
            raise MemoError(f"the memo in {self.path} is read-only: open it with read_only=False")
        return writer

    def _settled(self) -> Directory:
        """The directory, with everything put so far in it."""
        opened = self._use()
        self.commit().result()
        return opened

    def _open(self) -> Directory:
        with self._opening:
            if self._opened is not None:
                return self._opened
            if self._is_closed:
                raise MemoError(f"the memo in {self.path} is closed")
            opened = Directory(
                self.path, self._max_bytes, self._eviction, read_only=self._read_only
            )
            self._at_drop = weakref.finalize(self, opened.abandon)
            self._at_drop.atexit = False  # the directories see to that themselves, with patience
            self._opened = opened
            return opened

    def _is_expired(self, entry: Entry | EntryInfo) -> bool:
        return is_expired(entry.created_s, self._ttl_s, self._clock())
