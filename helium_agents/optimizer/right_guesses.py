"""What right guesses win: how long rows take if answers are known before they are there.

A call takes what it took when it was run, and longer or shorter by how many run beside it on its
engine: these share the steps, but not what each of them adds to a step. All else is as it was: when
rows began, and how long a row paused before it asked.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimedCall:
    """A call of a run.

    Args:
        row: Which row it is of, by its place.
        after: The calls that it waited for, by their places, which come before its own.
        guessable: Those of them that it need not wait for if their answers are guessed right.
        pause_s: From when those were there, or its row began, until it was asked.
        seconds: How long it was computed, before it was asked and afterwards.
        engine: What computes it; "" where others do not matter.
        own_share: What of the time that it takes alone is not shared with others, from 0 to 1.
        beside: How many ran on its engine meanwhile, on average, itself included.
    """

    row: int
    after: tuple[int, ...]
    guessable: frozenset[int]
    pause_s: float
    seconds: float
    engine: str = ""
    own_share: float = 0.0
    beside: float = 1.0

    def pace(self, num_beside: int) -> float:
        """How fast it goes with so many, as a share of how fast it went."""
        return _slowness(self.own_share, self.beside) / _slowness(self.own_share, num_beside)


def row_ends(
    calls: Sequence[TimedCall], starts: Sequence[float], *, are_guessed: bool
) -> list[float]:
    """When the last call of each row ends.

    Args:
        calls: All of them.
        starts: When each row begins.
        are_guessed: Whether all that may be guessed is guessed right, at once; otherwise nothing
            is.
    """
    return _Run(calls, starts, are_guessed=are_guessed).ends()


class _Run:
    def __init__(
        self, calls: Sequence[TimedCall], starts: Sequence[float], *, are_guessed: bool
    ) -> None:
        self._calls = calls
        self._are_guessed = are_guessed
        self._ends = list(starts)
        self._num_missing = [len(call.after) for call in calls]
        self._needed_by: list[list[int]] = [[] for _ in calls]
        for place, call in enumerate(calls):
            for source in call.after:
                self._needed_by[source].append(place)
        self._coming = [
            (starts[call.row] + call.pause_s, place)
            for place, call in enumerate(calls)
            if not call.after
        ]
        heapq.heapify(self._coming)
        self._left_s: dict[int, float] = {}  # of those that run, at the pace at which they ran
        self._num_beside: Counter[str] = Counter()

    def ends(self) -> list[float]:
        now_s = 0.0
        while self._coming or self._left_s:
            paces = {place: self._pace(place) for place in self._left_s}
            next_s, place = min(
                ((now_s + left_s / paces[place], place) for place, left_s in self._left_s.items()),
                default=(float("inf"), -1),
            )
            begins = bool(self._coming) and self._coming[0][0] <= next_s
            if begins:
                next_s, place = heapq.heappop(self._coming)
            for other, pace in paces.items():
                self._left_s[other] -= max(0.0, next_s - now_s) * pace
            now_s = max(now_s, next_s)
            (self._begin if begins else self._end)(place, now_s)
        return self._ends

    def _pace(self, place: int) -> float:
        call = self._calls[place]
        return call.pace(self._num_beside[call.engine]) if call.engine else 1.0

    def _begin(self, place: int, now_s: float) -> None:
        call = self._calls[place]
        self._left_s[place] = call.seconds
        self._num_beside[call.engine] += 1
        self._let_go(place, now_s, is_there=False)

    def _end(self, place: int, now_s: float) -> None:
        call = self._calls[place]
        del self._left_s[place]
        self._num_beside[call.engine] -= 1
        self._ends[call.row] = max(self._ends[call.row], now_s)
        self._let_go(place, now_s, is_there=True)

    def _let_go(self, place: int, now_s: float, *, is_there: bool) -> None:
        """A call begins, or its answer is there: some need not wait for it any more."""
        for other in self._needed_by[place]:
            call = self._calls[other]
            is_guessed = self._are_guessed and place in call.guessable
            if is_guessed != is_there:
                self._num_missing[other] -= 1
                if not self._num_missing[other]:
                    heapq.heappush(self._coming, (now_s + call.pause_s, other))


def _slowness(own_share: float, num_beside: float) -> float:
    return 1.0 + own_share * (max(1.0, num_beside) - 1.0)
