"""The store in memory: an ordered dict, for tests and sessions that leave nothing behind."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from helium_agents.errors import MemoError
from helium_agents.memo.entry import (
    check_bounds,
    check_key,
    check_label,
    is_expired,
    stored_bytes,
)
from helium_agents.memo.store import StoreStats


class _Kept(NamedTuple):
    label: str
    num_bytes: int
    created_s: float
    value: bytes


class MemoryStore:
    """Entries in this process's memory; a `Store` whose commits are done at once.

    Args:
        max_bytes: Bound on live bytes, counted as `LmdbStore` counts them; the least recently used
            entries go first. A value that alone exceeds it is not kept: its key is then absent.
        ttl_s: Entries older than this many seconds are misses; `None` for no limit.
        clock: Unix time in seconds; for tests.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 2**30,
        ttl_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_bounds(max_bytes, ttl_s)
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._num_bytes = 0
        self._is_closed = False

    def get(self, key: bytes) -> bytes | None:
        """The value, or `None`; see `Store.get`."""
        check_key(key)
        with self._lock:
            self._check_open()
            kept = self._kept.get(key)
            if kept is None or is_expired(kept.created_s, self._ttl_s, self._clock()):
                return None
            self._kept.move_to_end(key)
            return kept.value

    def put(self, key: bytes, value: bytes, *, label: str) -> None:
        """Keep the value; see `Store.put`."""
        check_key(key)
        check_label(label)
        kept = _Kept(label, stored_bytes(value, label), self._clock(), bytes(value))
        with self._lock:
            self._check_open()
            self._remove(key)
            if kept.num_bytes > self._max_bytes:
                return
            self._kept[key] = kept
            self._num_bytes += kept.num_bytes
            while self._num_bytes > self._max_bytes:
                self._remove(next(iter(self._kept)))

    def commit(self) -> Future[None]:
        """A future that is done: memory is as durable as it gets."""
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def clear(self) -> int:
        """Remove every entry, expired ones too; how many went."""
        with self._lock:
            self._check_open()
            num_entries = len(self._kept)
            self._kept.clear()
            self._num_bytes = 0
            return num_entries

    def stats(self) -> StoreStats:
        """What the store holds."""
        with self._lock:
            self._check_open()
            now_s = self._clock()
            live = [
                (kept.label, kept.num_bytes, kept.created_s)
                for kept in self._kept.values()
                if not is_expired(kept.created_s, self._ttl_s, now_s)
            ]
        return StoreStats.of(live, max_bytes=self._max_bytes)

    def close(self) -> None:
        """Forget everything. Idempotent."""
        with self._lock:
            self._is_closed = True
            self._kept.clear()

    def _remove(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._num_bytes -= kept.num_bytes

    def _check_open(self) -> None:
        if self._is_closed:
            raise MemoError("the memo store is closed")
