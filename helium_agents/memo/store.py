"""The store port: bytes by key, committed in groups.

A store knows nothing of calls, values or encodings: keys are 32-byte digests, values and provenance
opaque bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds.

    Args:
        num_entries: Live entries (not expired).
        num_bytes: Live bytes of keys, headers and values.
        max_bytes: The byte bound, or `None`.
        num_by_label: Live entries per label.
        bytes_by_label: Live bytes per label.
        oldest_s: Unix time of the oldest live entry, or `None`.
        newest_s: Unix time of the newest live entry, or `None`.
        num_corrupt: Reads of this store object that met a damaged entry, which is a miss.
    """

    num_entries: int
    num_bytes: int
    max_bytes: int | None
    num_by_label: dict[str, int]
    bytes_by_label: dict[str, int]
    oldest_s: float | None
    newest_s: float | None
    num_corrupt: int = 0

    @classmethod
    def of(
        cls,
        entries: Iterable[tuple[str, int, float]],
        *,
        max_bytes: int | None,
        num_corrupt: int = 0,
    ) -> StoreStats:
        """Count live entries, each given as label, bytes and creation time."""
        num_by_label: dict[str, int] = {}
        bytes_by_label: dict[str, int] = {}
        oldest_s = newest_s = None
        for label, num_bytes, created_s in entries:
            num_by_label[label] = num_by_label.get(label, 0) + 1
            bytes_by_label[label] = bytes_by_label.get(label, 0) + num_bytes
            oldest_s = created_s if oldest_s is None else min(oldest_s, created_s)
            newest_s = created_s if newest_s is None else max(newest_s, created_s)
        return cls(
            num_entries=sum(num_by_label.values()),
            num_bytes=sum(bytes_by_label.values()),
            max_bytes=max_bytes,
            num_by_label=num_by_label,
            bytes_by_label=bytes_by_label,
            oldest_s=oldest_s,
            newest_s=newest_s,
            num_corrupt=num_corrupt,
        )


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """What is known of an entry without reading its value.

    Args:
        key: 32 bytes.
        label: The label it was put with.
        num_bytes: What it counts against the byte bound: key, header, value, and provenance.
        created_s: Unix time at which it was put.
        has_provenance: Whether `Store.provenance` has something to say of it.
    """

    key: bytes
    label: str
    num_bytes: int
    created_s: float
    has_provenance: bool


@dataclass(frozen=True, slots=True)
class FullEntry:
    """All of an entry, as `Store.scan` gives it; ``provenance`` is empty where there is none."""

    key: bytes
    label: str
    created_s: float
    value: bytes
    provenance: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """What a check of a store found.

    Args:
        num_entries: Entries found, expired and damaged ones too.
        num_bytes: The bytes that they count, computed anew.
        problems: What is wrong, in words, each with the first digits of the key that it is about;
            empty for a sound store. At most 1,000, then one that says how many more.
        num_dropped: Damaged entries that a repair removed.
    """

    num_entries: int
    num_bytes: int
    problems: list[str] = field(default_factory=list)
    num_dropped: int = 0


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
            provenance: What was asked, for `provenance` to give back; never read by `get`. It is
                left out where the entry would exceed the byte bound with it.
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


class ManagedStore(Store, Protocol):
    """A store that people can look into and tidy up, as the command line does."""

    def provenance(self, key: bytes) -> bytes | None:
        """The provenance put with an entry; `None` if there is none or `get` has no value."""
        ...

    def describe(self, key: bytes) -> EntryInfo | None:
        """What is known of one entry; `None` where `get` has no value."""
        ...

    def entries(self, *, label: str | None = None) -> Iterator[EntryInfo]:
        """Live entries, the newest first, in bounded memory.

        What is put or removed meanwhile may be among them or not; nothing comes twice.

        Args:
            label: Only those with this label.
        """
        ...

    def scan(self, *, label: str | None = None) -> Iterator[FullEntry]:
        """Live entries, whole, by key, in bounded memory; does not count as use.

        Damaged entries are left out; `verify` names them.
        """
        ...

    def delete(self, keys: Iterable[bytes]) -> int:
        """Remove entries, durably; returns how many of the keys there were.

        The keys may be made while it runs: ``store.delete(e.key for e in store.entries())``.
        """
        ...

    def prune(
        self,
        *,
        older_than_s: float | None = None,
        max_bytes: int | None = None,
        label: str | None = None,
    ) -> int:
        """Remove expired entries, then old ones, then the least recently used; how many went.

        Args:
            older_than_s: Remove what was put longer ago than this. As with a time to live, an
                entry from as far in the future counts as old.
            max_bytes: Then remove the least recently used until the rest counts at most this
                many bytes; 0 removes all.
            label: Only entries with this label go, and only they count.
        """
        ...

    def verify(self, *, repair: bool = False) -> Report:
        """Check everything that can be checked; damage is described, not raised.

        Args:
            repair: Also mend what can be mended: damaged entries go, and everything that can be
                computed from the others is. The report says what was found before.
        """
        ...

    def clear(self) -> int:
        """Remove every entry; returns how many there were."""
        ...

    def stats(self) -> StoreStats:
        """What the store holds."""
        ...
