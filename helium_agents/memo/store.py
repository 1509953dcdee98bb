"""The store port: bytes by key, committed in groups; and what stores say of their entries.

A store knows nothing of calls, values or encodings: keys are 32-byte digests, values and provenance
opaque bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

KEY_BYTES = 32


class Entry(NamedTuple):
    """All of an entry; ``provenance`` is empty where there is none."""

    key: bytes
    label: str
    created_s: float
    value: bytes
    provenance: bytes = b""


class EntryInfo(NamedTuple):
    """What is known of an entry without reading its value.

    Args:
        key: 32 bytes.
        label: The label it was put with.
        num_bytes: What it counts against the byte bound: key, header, value, and provenance.
        created_s: Unix time at which it was put.
        last_use: Its place in the order of use; larger is later.
    """

    key: bytes
    label: str
    num_bytes: int
    created_s: float
    last_use: int


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds.

    Args:
        num_entries: Live entries (not expired).
        num_bytes: Live bytes of keys, headers, values and provenance.
        max_bytes: The byte bound.
        num_by_label: Live entries per label.
        bytes_by_label: Live bytes per label.
        oldest_s: Unix time of the oldest live entry, or `None`.
        newest_s: Unix time of the newest live entry, or `None`.
        num_corrupt: Reads of this store object that met a damaged entry, which is a miss.
    """

    num_entries: int
    num_bytes: int
    max_bytes: int
    num_by_label: dict[str, int]
    bytes_by_label: dict[str, int]
    oldest_s: float | None
    newest_s: float | None
    num_corrupt: int = 0

    @classmethod
    def of(
        cls, entries: Iterable[EntryInfo], *, max_bytes: int, num_corrupt: int = 0
    ) -> StoreStats:
        """Count live entries."""
        num_by_label: Counter[str] = Counter()
        bytes_by_label: Counter[str] = Counter()
        oldest_s = newest_s = None
        for _, label, num_bytes, created_s, _ in entries:
            num_by_label[label] += 1
            bytes_by_label[label] += num_bytes
            oldest_s = created_s if oldest_s is None else min(oldest_s, created_s)
            newest_s = created_s if newest_s is None else max(newest_s, created_s)
        return cls(
            num_entries=num_by_label.total(),
            num_bytes=bytes_by_label.total(),
            max_bytes=max_bytes,
            num_by_label=dict(num_by_label),
            bytes_by_label=dict(bytes_by_label),
            oldest_s=oldest_s,
            newest_s=newest_s,
            num_corrupt=num_corrupt,
        )


class Store(Protocol):
    """A persistent or in-memory map from 32-byte keys to bytes: what a session asks of it."""

    def get(self, key: bytes) -> bytes | None:
        """The value, or `None` if there is none or it has expired. A small synchronous read.

        A value that was `put` by this store object is visible at once, before its commit.
        """
        ...

    def put(
        self,
        key: bytes,
        value: bytes,
        *,
        label: str,
        provenance: bytes = b"",
        created_s: float | None = None,
    ) -> None:
        """Keep the value, replacing what was there; returns before it is durable.

        Args:
            key: 32 bytes.
            value: Any bytes.
            label: A short name for statistics and selection (an operator's name).
            provenance: What was asked, for people; never read by `get`. It is left out where the
                entry would exceed the byte bound with it.
            created_s: Unix time since which the value exists, if not now (for imports).
        """
        ...

    def commit(self) -> Future[None]:
        """A future that is done when everything `put` so far is durable; it has the error if not.

        Waits at most 50 ms for company.
        """
        ...

    def close(self) -> None:
        """Commit what is pending and release everything. Idempotent."""
        ...


class BrowsableStore(Store, Protocol):
    """A store that people can look into, as the command line does."""

    def find(self, key: bytes) -> Entry | None:
        """All of an entry; `None` where `get` has no value. Does not count as use."""
        ...

    def entries(self) -> list[EntryInfo]:
        """Live entries, the newest first. Takes 300 bytes of memory for each."""
        ...


@runtime_checkable
class KeepsProfiles(Protocol):
    """A store that also keeps what was learned of workflows; small, and never evicted.

    Without it every run learns anew.
    """

    def profile(self, key: bytes) -> bytes | None:
        """What was learned of a workflow; `None` for nothing."""
        ...

    def put_profile(self, key: bytes, data: bytes) -> None:
        """Keep what was learned, or forget it where that is empty; returns before it is durable."""
        ...

    def profiles(self) -> dict[bytes, bytes]:
        """All of them, by key."""
        ...
