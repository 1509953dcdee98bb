"""Policies: which row may be begun beside those that are open.

The one that a cache's size suggests goes by what a row holds at most at once that is of use: what
its running calls hold, and what was computed already and a later call of it begins with. While the
peaks of the open rows fit together, nothing that is of use is evicted. What rows share counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from helium_agents.optimizer.forecast import Forecast, ForecastCall


class Policy(Protocol):
    """Says whether a row may be begun; `str` of it is its name."""

    def may_open(self, item: int, open_items: Set[int]) -> bool:
        """Whether a row may be begun beside the open ones."""
        ...


@dataclass(frozen=True)
class AllOpen:
    """Every row, at once."""

    def may_open(self, item: int, open_items: Set[int]) -> bool:
        """Always."""
        return True

    def __str__(self) -> str:
        return "everything open"


ALL_OPEN = AllOpen()


@dataclass(frozen=True)
class AtMost:
    """So many rows.

    Args:
        max_open: Most rows that are open at once; at least 1.
    """

    max_open: int

    def may_open(self, item: int, open_items: Set[int]) -> bool:
        """While fewer are open."""
        return len(open_items) < self.max_open

    def __str__(self) -> str:
        return f"{self.max_open} rows open"


class Peaks:
    """The most that each row of a forecast holds at once that is of use.

    Args:
        forecast: The rows.
        piece_tokens: What each piece takes of the KV cache.

    Attributes:
        pieces: By item, the pieces of prompts and answers that it holds then.
        piece_tokens: What each takes.
        common_tokens: What all rows have in common.
        mean_tokens: What a row that is not in the forecast is taken to add to the others.
    """

    def __init__(self, forecast: Forecast, piece_tokens: Sequence[int]) -> None:
        self.piece_tokens = piece_tokens
        self.pieces: Mapping[int, frozenset[int]] = {
            item: _peak(row, piece_tokens)
            for item, row in zip(forecast.items, forecast.rows, strict=True)
        }
        peaks = list(self.pieces.values())
        of_all = peaks[0].intersection(*peaks)
        of_some = frozenset().union(*peaks) - of_all
        self.common_tokens = sum(piece_tokens[piece] for piece in of_all)
        self.mean_tokens = sum(piece_tokens[piece] for piece in of_some) / len(peaks)


class PeaksFit:
    """Rows whose peaks fit into the KV cache together.

    Args:
        peaks: Of the rows.
        kv_tokens: What the KV cache holds.
        tightness: Their peaks may add up to so many times that: all at once they hardly come.
    """

    def __init__(self, peaks: Peaks, kv_tokens: int, tightness: float) -> None:
        self._peaks = peaks
        self._most_tokens = kv_tokens * tightness
        self._tightness = tightness
        self._counted: set[int] = set()
        self._in_use: Counter[int] = Counter()
        self._tokens = 0.0

    def may_open(self, item: int, open_items: Set[int]) -> bool:
        """While the peaks of the open rows leave so much."""
        if not open_items:
            return True
        for ended in self._counted - open_items:
            self._count(ended, -1)
        for begun in open_items - self._counted:
            self._count(begun, 1)
        tokens, in_use = self._peaks.piece_tokens, self._in_use
        peak = self._peaks.pieces.get(item)
        if peak is None:
            return self._tokens + self._peaks.mean_tokens <= self._most_tokens
        need = sum(tokens[piece] for piece in peak if not in_use[piece])
        return self._tokens + need <= self._most_tokens

    def _count(self, item: int, number: int) -> None:
        (self._counted.add if number > 0 else self._counted.remove)(item)
        peak = self._peaks.pieces.get(item)
        if peak is None:
            self._tokens += number * self._peaks.mean_tokens
            return
        for piece in peak:
            before = self._in_use[piece]
            self._in_use[piece] = before + number
            if before == 0 or before + number == 0:
                self._tokens += number * self._peaks.piece_tokens[piece]

    def __str__(self) -> str:
        return f"rows open whose live KV cache fits {self._tightness:g} times"


def _peak(row: Sequence[ForecastCall], piece_tokens: Sequence[int]) -> frozenset[int]:
    """The most that is held at once that is of use, where calls run as soon as they can."""
    levels: list[list[ForecastCall]] = []
    level_of: list[int] = []
    for call in row:
        level = 1 + max((level_of[each] for each in call.inputs), default=-1)
        level_of.append(level)
        if level == len(levels):
            levels.append([])
        levels[level].append(call)
    needed: list[set[int]] = [set()]  # by later levels, from the last on
    for calls in reversed(levels[1:]):
        needed.append(needed[-1].union(*(call.prompt for call in calls)))
    peak, most = frozenset[int](), -1
    computed: set[int] = set()
    for calls, later in zip(levels, reversed(needed), strict=True):
        running = {piece for call in calls for piece in (*call.prompt, *call.answer)}
        computed |= running
        live = running | (computed & later)
        tokens = sum(piece_tokens[piece] for piece in live)
        if tokens > most:
            peak, most = frozenset(live), tokens
    return peak
