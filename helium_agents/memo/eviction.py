"""Eviction: which entries go first where a memo holds more than it may.

A policy is a function of what is known of an entry; those with the least value go first. It is
asked about entries that are at hand, so a store keeps no order for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from helium_agents.memo.store import EntryInfo

EvictionPolicy: TypeAlias = Callable[[EntryInfo], float]
"""Says of an entry how long it should stay, compared with others."""


def least_recently_used(entry: EntryInfo) -> float:
    """What was used longest ago goes first."""
    return entry.last_use


def first_to_go(
    entries: Iterable[EntryInfo], excess_bytes: int, policy: EvictionPolicy
) -> Iterator[bytes]:
    """Keys of entries to remove, the first to go first, until so many bytes are gone.

    Args:
        entries: Those to choose from.
        excess_bytes: How many bytes are too much.
        policy: Says who goes first.
    """
    for entry in sorted(entries, key=policy):
        if excess_bytes <= 0:
            return
        yield entry.key
        excess_bytes -= entry.num_bytes
