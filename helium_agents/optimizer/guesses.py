"""Guesses: what a call will be answered with, as far as closed answers of earlier ones tell.

Counted is which of the few values of a call site came, and after which one that came there last in
the same row. No text is kept: of a site and its values a digest, of an answer its place among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple

from helium_agents.keys.encoding import fingerprint

_MOST_SITES: Final = 512
_MOST_COUNTED: Final = 256.0
"""Of more answers older ones count half."""

_GENERAL_WEIGHT: Final = 2.0
"""What came after any value counts as much as so many answers after this one."""


class Guess(NamedTuple):
    """What a call may be answered with.

    Args:
        value: JSON text of the answer, or of what is known of it.
        probability: That it is, from 0 to 1, as who guesses sees it.
        source: Who guesses.
    """

    value: str
    probability: float
    source: str


@dataclass(slots=True)
class Histogram:
    """How often each closed answer came at each call site.

    Args:
        counts: By digest of the site, its values and the one before: by place among the values.
    """

    counts: dict[str, dict[int, float]] = field(default_factory=dict)

    def observe(
        self, site: str, values: Sequence[str], previous: str | None, value: str | None
    ) -> None:
        """An answer has come.

        Args:
            site: Where.
            values: All that there may be.
            previous: The one that came there before in the same row; `None` of the first.
            value: Which of them it is; another one does not count.
        """
        if value not in values:
            return
        index = values.index(value)
        for context in (_context(site, values), _context(site, values, previous)):
            self._add(context, {index: 1.0})

    def add_all(self, newer: Histogram) -> None:
        """Take note of all that a newer one knows."""
        for context, others in newer.counts.items():
            self._add(context, others)

    def _add(self, context: str, newer: Mapping[int, float]) -> None:
        counts = self.counts.pop(context, {})
        if sum(counts.values()) + sum(newer.values()) > _MOST_COUNTED:
            counts = {index: count / 2 for index, count in counts.items()}
        for index, count in newer.items():
            counts[index] = counts.get(index, 0.0) + count
        self.counts[context] = counts  # the newest is the last
        if len(self.counts) > _MOST_SITES:
            del self.counts[next(iter(self.counts))]


def guesses(
    known: Sequence[Histogram], site: str, values: Sequence[str], previous: str | None
) -> list[Guess]:
    """What a call will be answered with, the most probable first; nothing if none was seen.

    Answers after the same value count most; what came at the site at all smooths them, and that in
    turn by one answer for each value (Laplace).

    Args:
        known: What is known, from any number of runs.
        site: Where the call is made.
        values: All answers that there may be.
        previous: The one that came there before in the same row; `None` of the first.
    """
    general = _counts(known, _context(site, values))
    here = _counts(known, _context(site, values, previous))
    if not general:
        return []
    total, total_here = sum(general.values()), sum(here.values())
    found = []
    for index, value in enumerate(values):
        share = (general.get(index, 0.0) + 1.0) / (total + len(values))
        share = (here.get(index, 0.0) + _GENERAL_WEIGHT * share) / (total_here + _GENERAL_WEIGHT)
        found.append(Guess(value, share, "histogram"))
    return sorted(found, key=lambda guess: -guess.probability)


def _counts(known: Sequence[Histogram], context: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for index, count in chain(*(each.counts.get(context, {}).items() for each in known)):
        found[index] = found.get(index, 0.0) + count
    return found


def _context(site: str, values: Sequence[str], *previous: str | None) -> str:
    """16 hex digits for a site and its values, and for what came there before."""
    return fingerprint("closed", site, list(values), list(previous))[:8].hex()
