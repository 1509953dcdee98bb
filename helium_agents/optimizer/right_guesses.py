"""What right guesses win: how long rows take if answers are known before they are there.

A call takes what it took when it was run, and longer or shorter by how many run beside it on its
engine: these share the steps, but not what each of them adds to a step. All else is as it was: when
rows began, and how long a row paused before it asked.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimedCall:
    """A call of a run.

    Args:
        row: Which row it is of, by its place.
        after: The calls that it waited for, by their places.
        guessable: Those of them that it need not wait for if their answers are guessed right.
        pause_s: From when those were there, or its row began, until it was asked.
        seconds: How long it was computed, before it was asked and afterwards.
        engine: What computes it; "" where others do not matter.
        beside: How many ran on its engine meanwhile, on average, itself included.
    """

    row: int
    after: tuple[int, ...]
    guessable: frozenset[int]
    pause_s: float
    seconds: float
    engine: str = ""
    beside: float = 1.0


def row_ends(
    calls: Sequence[TimedCall],
    starts: Sequence[float],
    own_shares: Mapping[str, float],
    *,
    are_guessed: bool,
) -> list[float]:
    """When the last call of each row ends.

    Args:
        calls: All of them.
        starts: When each row begins.
        own_shares: By engine: what of the time that calls take alone they do not share with
            others, from 0 to 1.
        are_guessed: Whether all that may be guessed is guessed right, at once; otherwise nothing
            is.
    """
    return _Run(calls, starts, own_shares, are_guessed=are_guessed).ends()


class _Engine:
    """Calls that run beside one another.

    Time passes for them the more slowly the more they are.
    """

    def __init__(self, own_share: float) -> None:
        self._own_share = own_share
        self._now_s = self._passed_s = 0.0
        self._running: list[tuple[float, int]] = []  # by when they end, in time that passes

    @property
    def next_end_s(self) -> float:
        """When the next of them ends."""
        if not self._running:
            return float("inf")
        left_s = self._running[0][0] - self._passed_s
        return self._now_s + max(0.0, left_s) * self._slowness(len(self._running))

    def begin(self, place: int, call: TimedCall, now_s: float) -> None:
        """A call begins."""
        self._go_on(now_s)
        alone_s = call.seconds / self._slowness(call.beside)
        heapq.heappush(self._running, (self._passed_s + alone_s, place))

    def end(self, now_s: float) -> int:
        """The next call ends; which."""
        self._go_on(now_s)
        return heapq.heappop(self._running)[1]

    def _go_on(self, now_s: float) -> None:
        if self._running:
            self._passed_s += (now_s - self._now_s) / self._slowness(len(self._running))
        self._now_s = now_s

    def _slowness(self, num_beside: float) -> float:
        return 1.0 + self._own_share * (max(1.0, num_beside) - 1.0)


class _Run:
    def __init__(
        self,
        calls: Sequence[TimedCall],
        starts: Sequence[float],
        own_shares: Mapping[str, float],
        *,
        are_guessed: bool,
    ) -> None:
        self._calls = calls
        self._are_guessed = are_guessed
        self._ends = list(starts)
        self._num_missing = [len(call.after) for call in calls]
        self._needed_by: list[list[int]] = [[] for _ in calls]
        self._engines: dict[str, _Engine] = {}
        self._coming: list[tuple[float, int]] = []
        for place, call in enumerate(calls):
            for source in call.after:
                self._needed_by[source].append(place)
            if call.engine not in self._engines:
                self._engines[call.engine] = _Engine(own_shares.get(call.engine, 0.0))
            if not call.after:
                heapq.heappush(self._coming, (starts[call.row] + call.pause_s, place))

    def ends(self) -> list[float]:
        while True:
            engine = min(self._engines.values(), key=lambda engine: engine.next_end_s)
            end_s = engine.next_end_s
            if self._coming and self._coming[0][0] <= end_s:
                begin_s, place = heapq.heappop(self._coming)
                call = self._calls[place]
                self._engines[call.engine].begin(place, call, begin_s)
                self._let_go(place, begin_s, is_there=False)
            elif end_s < float("inf"):
                place = engine.end(end_s)
                row = self._calls[place].row
                self._ends[row] = max(self._ends[row], end_s)
                self._let_go(place, end_s, is_there=True)
            else:
                return self._ends

    def _let_go(self, place: int, now_s: float, *, is_there: bool) -> None:
        """A call begins, or its answer is there: some need not wait for it any more."""
        for other in self._needed_by[place]:
            call = self._calls[other]
            is_guessed = self._are_guessed and place in call.guessable
            if is_guessed != is_there:
                self._num_missing[other] -= 1
                if not self._num_missing[other]:
                    heapq.heappush(self._coming, (now_s + call.pause_s, other))
