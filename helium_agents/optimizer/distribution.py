"""A distribution: what is kept of many lengths or times, so that few numbers tell most of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_STEPS_PER_DOUBLING = 4
_LEAST_VALUE = 1e-3
_MOST_NUMBER = 4096
"""Of more values older ones count half, so that what is kept follows what is measured."""


@dataclass(slots=True)
class Distribution:
    """Values, at least 0: how many, their mean and spread, and about how many of each size.

    Args:
        number: How many values.
        total: Their sum.
        squares: The sum of their squares.
        least: The smallest.
        most: The largest.
        counts: How many are in each interval; four intervals are a factor of two.
    """

    number: float = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    most: float = 0.0
    counts: dict[int, float] = field(default_factory=dict)

    def add(self, value: float) -> None:
        """Take note of a value."""
        self.number += 1
        self.total += value
        self.squares += value * value
        self.least, self.most = min(self.least, value), max(self.most, value)
        interval = _interval(value)
        self.counts[interval] = self.counts.get(interval, 0) + 1

    def add_all(self, other: Distribution) -> None:
        """Take note of all values of another; where that are many, the older ones count half."""
        while self.number + other.number > _MOST_NUMBER and self.number > 1:
            self._halve()
        self.number += other.number
        self.total += other.total
        self.squares += other.squares
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        for interval, count in other.counts.items():
            self.counts[interval] = self.counts.get(interval, 0) + count

    @property
    def mean(self) -> float:
        """The mean; 0 of no values."""
        return self.total / self.number if self.number else 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation; 0 of no values."""
        if not self.number:
            return 0.0
        return math.sqrt(max(0.0, self.squares / self.number - self.mean**2))

    def quantile(self, share: float) -> float:
        """A value below which about such a share of all is, from 0 to 1; 0 of no values."""
        left = share * self.number
        for interval, count in sorted(self.counts.items()):
            left -= count
            if left <= 0:
                return min(self.most, max(self.least, 2 ** (interval / _STEPS_PER_DOUBLING)))
        return self.most

    def _halve(self) -> None:
        self.number, self.total, self.squares = (
            self.number / 2, self.total / 2, self.squares / 2,
        )  # fmt: skip
        self.counts = {interval: count / 2 for interval, count in self.counts.items()}


def _interval(value: float) -> int:
    return round(_STEPS_PER_DOUBLING * math.log2(max(value, _LEAST_VALUE)))
