"""The store in memory: an ordered dict, for tests and sessions that leave nothing behind."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import NamedTuple

from helium_agents.errors import MemoError
from helium_agents.memo.entry import (
    check_bounds,
    check_key,
    check_label,
    check_time,
    is_expired,
    stored_bytes,
    what_fits,
)
from helium_agents.memo.provenance import provenance_bytes
from helium_agents.memo.store import EntryInfo, FullEntry, Report, StoreStats


class _Kept(NamedTuple):
    label: str
    num_bytes: int
    created_s: float
    value: bytes
    provenance: bytes


_Packed = tuple[str, int, float, bytes, bytes]
"""A `_Kept` as it lies in memory: the garbage collector learns that a bare tuple of atoms needs no
more visits, but goes on looking at every instance of a class of tuples, however many there are."""


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
        self._kept: OrderedDict[bytes, _Packed] = OrderedDict()
        self._num_bytes = 0
        self._committed: Future[None] = Future()
        self._committed.set_result(None)
        self._is_closed = False

    def get(self, key: bytes) -> bytes | None:
        """The value, or `None`; see `Store.get`."""
        check_key(key)
        with self._lock:
            kept = self._live(key)
            if kept is None:
                return None
            self._kept.move_to_end(key)
            return kept.value

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
        check_key(key)
        check_label(label)
        if created_s is None:
            created_s = self._clock()
        else:
            check_time(created_s)
        fits, provenance = what_fits(value, label, provenance, self._max_bytes)
        num_bytes = stored_bytes(value, label) + provenance_bytes(provenance) + self._overhead_bytes
        with self._lock:
            self._check_open()
            self._remove(key)
            if not fits:
                return
            self._kept[key] = (label, num_bytes, created_s, bytes(value), bytes(provenance))
            self._num_bytes += num_bytes
            while self._num_bytes > self._max_bytes:
                self._remove(next(iter(self._kept)))

    def commit(self) -> Future[None]:
        """A future that is done: memory is as durable as it gets."""
        return self._committed

    def provenance(self, key: bytes) -> bytes | None:
        """What was asked; see `Store.provenance`."""
        check_key(key)
        with self._lock:
            kept = self._live(key)
            return (kept.provenance or None) if kept else None

    def describe(self, key: bytes) -> EntryInfo | None:
        """What is known of one entry; see `Store.describe`."""
        check_key(key)
        with self._lock:
            kept = self._live(key)
            return _info(key, kept) if kept else None

    def entries(self, *, label: str | None = None) -> Iterator[EntryInfo]:
        """Live entries, the newest first; see `Store.entries`."""
        found = [_info(key, kept) for key, kept in self._select(label)]
        return iter(sorted(found, key=lambda entry: (entry.created_s, entry.key), reverse=True))

    def scan(self, *, label: str | None = None) -> Iterator[FullEntry]:
        """Live entries with all they have; see `Store.scan`."""
        for key, kept in sorted(self._select(label)):
            yield FullEntry(key, kept.label, kept.created_s, kept.value, kept.provenance)

    def delete(self, keys: Iterable[bytes]) -> int:
        """Remove entries; see `Store.delete`."""
        num_removed = 0
        for key in keys:
            check_key(key)
            with self._lock:
                self._check_open()
                num_removed += self._remove(key)
        return num_removed

    def prune(
        self,
        *,
        older_than_s: float | None = None,
        max_bytes: int | None = None,
        label: str | None = None,
    ) -> int:
        """Remove what is old or too much; see `Store.prune`."""
        with self._lock:
            self._check_open()
            now_s = self._clock()
            num_before, num_bytes = len(self._kept), 0
            for key, kept in self._unpacked():
                if label is None or kept.label == label:
                    if is_expired(kept.created_s, self._ttl_s, now_s) or is_expired(
                        kept.created_s, older_than_s, now_s
                    ):
                        self._remove(key)
                    else:
                        num_bytes += kept.num_bytes
            if max_bytes is not None:
                for key, kept in self._unpacked():
                    if num_bytes > max_bytes and (label is None or kept.label == label):
                        self._remove(key)
                        num_bytes -= kept.num_bytes
            return num_before - len(self._kept)

    def verify(self, *, repair: bool = False) -> Report:
        """Check the count of live bytes, which is all that could be wrong; see `Store.verify`."""
        with self._lock:
            self._check_open()
            num_bytes = sum(kept.num_bytes for _, kept in self._unpacked())
            problems = []
            if num_bytes != self._num_bytes:
                problems.append(f"the count of live bytes is {self._num_bytes}, not {num_bytes}")
            if num_bytes > self._max_bytes:
                problems.append(f"there are {num_bytes} live bytes, above {self._max_bytes}")
            if repair:
                self._num_bytes = num_bytes
            return Report(len(self._kept), num_bytes, problems)

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
        live = [(kept.label, kept.num_bytes, kept.created_s) for _, kept in self._select(None)]
        return StoreStats.of(live, max_bytes=self._max_bytes)

    def close(self) -> None:
        """Forget everything. Idempotent."""
        with self._lock:
            self._is_closed = True
            self._kept.clear()

    def _live(self, key: bytes) -> _Kept | None:
        """What is kept under a key and has not expired; the lock is held."""
        self._check_open()
        packed = self._kept.get(key)
        if packed is None:
            return None
        kept = _Kept._make(packed)
        return None if is_expired(kept.created_s, self._ttl_s, self._clock()) else kept

    def _unpacked(self) -> list[tuple[bytes, _Kept]]:
        """All that is kept; the lock is held."""
        return [(key, _Kept._make(packed)) for key, packed in self._kept.items()]

    def _select(self, label: str | None) -> list[tuple[bytes, _Kept]]:
        """All that has not expired, of one label or any."""
        with self._lock:
            self._check_open()
            now_s = self._clock()
            return [
                (key, kept)
                for key, kept in self._unpacked()
                if (label is None or kept.label == label)
                and not is_expired(kept.created_s, self._ttl_s, now_s)
            ]

    def _remove(self, key: bytes) -> bool:
        packed = self._kept.pop(key, None)
        if packed is not None:
            self._num_bytes -= _Kept._make(packed).num_bytes
        return packed is not None

    def _check_open(self) -> None:
        if self._is_closed:
            raise MemoError("the memo store is closed")


def _info(key: bytes, kept: _Kept) -> EntryInfo:
    return EntryInfo(key, kept.label, kept.num_bytes, kept.created_s, bool(kept.provenance))
