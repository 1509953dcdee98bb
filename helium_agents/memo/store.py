"""The store port: bytes by key, committed in groups.

A store knows nothing of calls, values or encodings: keys are 32-byte digests, values opaque bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
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


class Store(Protocol):
    """A persistent or in-memory map from 32-byte keys to bytes."""

    def get(self, key: bytes) -> bytes | None:
        """The value, or `None` if there is none or it has expired. A small synchronous read.

        A value that was `put` by this store object is visible at once, before its commit.
        """
        ...

    def put(self, key: bytes, value: bytes, *, label: str) -> None:
        """Keep the value, replacing an earlier one; returns before it is durable.

        Args:
            key: 32 bytes.
            value: Any bytes.
            label: A short name for statistics and selection (an operator's name).
        """
        ...

    def commit(self) -> Future[None]:
        """A future that is done when everything `put` so far is durable; it has the error if not.

        Waits at most 50 ms for company.
        """
        ...

    def clear(self) -> int:
        """Remove every entry; returns how many there were."""
        ...

    def stats(self) -> StoreStats:
        """What the store holds."""
        ...

    def close(self) -> None:
        """Commit what is pending and release everything. Idempotent."""
        ...
