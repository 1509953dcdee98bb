"""The store in memory: an ordered dict, for tests and sessions that leave nothing behind."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from helium_agents.errors import MemoError
from helium_agents.memo.entry import (
    check_bounds,
    check_key,
    check_put,
    entry_bytes,
    is_expired,
)
from helium_agents.memo.store import KEY_BYTES, Entry, EntryInfo, StoreStats

_Kept = tuple[str, int, float, bytes, bytes]
"""Label, bytes, creation time, value and provenance. A bare tuple, since the garbage collector
learns that one of atoms needs no more visits, but goes on looking at every instance of a class of
tuples, however many there are."""


class MemoryStore:
    """Entries in this process's memory; a `Store` whose commits are done at once.

    Args:
        max_bytes: Bound on live bytes, counted as `LmdbStore` counts them; the least recently used
            entries go first. A value that alone exceeds it is not kept: its key is then absent.
        overhead_bytes: What each entry counts besides, so that the bound is one on memory used.
        ttl_s: Entries older than this many seconds are misses; `None` for no limit.
        clock: Unix time in seconds; for tests.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 2**30,
        overhead_bytes: int = 0,
        ttl_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_bounds(max_bytes, ttl_s)
        self._max_bytes = max_bytes
        self._overhead_bytes = overhead_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._num_bytes = 0
        self._profiles: dict[bytes, bytes] = {}
        self._committed: Future[None] = Future()
        self._committed.set_result(None)
        self._is_closed = False

    def get(self, key: bytes) -> bytes | None:
        """The value, or `None`; see `Store.get`."""
        if self._is_closed or len(key) != KEY_BYTES:
            self._check(key)
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or (self._ttl_s is not None and self._is_expired(kept[2])):
                return None
            self._kept.move_to_end(key)
            return kept[3]

    def put(
        self,
        key: bytes,
        value: bytes,
        *,
        label: str,
        provenance: bytes = b"",
        created_s: float | None = None,
    ) -> None:
        """Keep the value; see `Store.put`."""
        created_s = self._clock() if created_s is None else created_s
        check_put(key, label, created_s)
        num_bytes = entry_bytes(value, label, provenance)
        if num_bytes > self._max_bytes and provenance:
            provenance = b""
            num_bytes = entry_bytes(value, label)
        with self._lock:
            if self._is_closed:
                self._check(key)
            if key in self._kept:
                self._remove(key)
            if num_bytes > self._max_bytes:
                return
            num_bytes += self._overhead_bytes
            self._kept[key] = (label, num_bytes, created_s, bytes(value), bytes(provenance))
            self._num_bytes += num_bytes
            while self._num_bytes > self._max_bytes:
                self._remove(next(iter(self._kept)))

    def commit(self) -> Future[None]:
        """A future that is done: memory is as durable as it gets."""
        return self._committed

    def find(self, key: bytes) -> Entry | None:
        """All of an entry; see `BrowsableStore.find`."""
        self._check(key)
        with self._lock:
            kept = self._kept.get(key)
        if kept is None or self._is_expired(kept[2]):
            return None
        label, _, created_s, value, provenance = kept
        return Entry(key, label, created_s, value, provenance)

    def entries(self) -> list[EntryInfo]:
        """Live entries; see `BrowsableStore.entries`."""
        if self._is_closed:
            raise MemoError(_CLOSED)
        with self._lock:
            live = [
                EntryInfo(key, label, num_bytes, created_s, place)
                for place, (key, (label, num_bytes, created_s, _, _)) in enumerate(
                    self._kept.items()
                )
                if not self._is_expired(created_s)
            ]
        return sorted(live, key=lambda entry: (entry.created_s, entry.key), reverse=True)

    def profile(self, key: bytes) -> bytes | None:
        """What was learned of a workflow; see `KeepsProfiles.profile`."""
        return self._profiles.get(key)

    def put_profile(self, key: bytes, data: bytes) -> None:
        """Keep or forget it; see `KeepsProfiles.put_profile`."""
        self._check(key)
        if data:
            self._profiles[key] = data
        else:
            self._profiles.pop(key, None)

    def profiles(self) -> dict[bytes, bytes]:
        """All of them, by key."""
        return dict(self._profiles)

    def stats(self) -> StoreStats:
        """What the store holds."""
        return StoreStats.of(self.entries(), max_bytes=self._max_bytes)

    def close(self) -> None:
        """Forget everything. Idempotent."""
        with self._lock:
            self._is_closed = True
            self._kept.clear()

    def _check(self, key: bytes) -> None:
        check_key(key)
        if self._is_closed:
            raise MemoError(_CLOSED)

    def _is_expired(self, created_s: float) -> bool:
        return is_expired(created_s, self._ttl_s, self._clock())

    def _remove(self, key: bytes) -> None:
        self._num_bytes -= self._kept.pop(key)[1]


_CLOSED = "the memo store is closed"
