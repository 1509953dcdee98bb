"""Medians with intervals, ratios of pairs, and the rule by which a claim fails.

The interval of a median is the distribution-free one, between two order statistics (Conover,
Practical Nonparametric Statistics, 3rd ed., section 3.2): of n independent values the number below
the median is binomial, whatever their distribution, so ranks can be chosen that enclose the median
with at least the wanted probability. It assumes no symmetry and no shape, and it is the same for
times as for their logarithms. The price: fewer than six values cannot give 95%, because even
their whole range encloses the median with a probability of only 1 - 2^(1-n). Then the range is
given with that probability as its confidence, and no claim is decided on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

CONFIDENCE = 0.95
MIN_VALUES = 6
"""The least number of values that gives an interval of this confidence."""

Outcome = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and the limits between which it lies.

    Args:
        median: Of the values.
        low: Lower limit, one of the values.
        high: Upper limit, one of the values.
        confidence: Probability with which such limits enclose the true median: 0.95 or a little
            more; less where there are fewer than six values, and the limits are their range.
        num_values: How many values there were.
    """

    median: float
    low: float
    high: float
    confidence: float
    num_values: int

    @property
    def is_resolved(self) -> bool:
        """Whether the limits have the wanted confidence."""
        return self.confidence >= CONFIDENCE


def median_interval(values: Sequence[float]) -> Interval:
    """Median of the values, with a 95% interval where there are enough of them.

    Raises:
        ValueError: There are none, or one is not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"a median needs finite values, at least one: {list(values)}")
    ordered = sorted(values)
    rank, confidence = _ranks(len(ordered))
    return Interval(
        float(np.median(ordered)), ordered[rank], ordered[-1 - rank], confidence, len(ordered)
    )


def confidence_of(num_values: int) -> float:
    """The confidence of the interval that `median_interval` gives for so many values."""
    return _ranks(num_values)[1]


def _ranks(num_values: int) -> tuple[int, float]:
    """How many values lie outside on each side at most, and the confidence of what is inside."""
    outside, rank = 2.0 ** (1 - num_values), 0  # of being below the least value or above the most
    while True:
        more = outside + 2 * math.comb(num_values, rank + 1) / 2**num_values
        if more > 1 - CONFIDENCE:
            return rank, 1 - outside
        outside, rank = more, rank + 1


def paired_ratio(times: Sequence[float], reference: Sequence[float]) -> Interval:
    """Median of time ÷ reference over pairs that were measured next to each other.

    A pair shares the state that the machine was in, which a ratio of two medians does not.

    Args:
        times: Of one system, in the order in which they were measured.
        reference: Of the other, in the same order.

    Raises:
        ValueError: They are not pairs, or a time is not positive.
    """
    if len(times) != len(reference):
        raise ValueError(f"no pairs: {len(times)} times and {len(reference)} to compare with")
    if not all(time > 0 for time in (*times, *reference)):
        raise ValueError("a ratio needs times above 0")
    return median_interval([time / other for time, other in zip(times, reference, strict=True)])


def at_least(ratio: Interval, least: float = 1.0) -> Outcome:
    """Whether the claim "the ratio is not below `least`" stands.

    It fails only if the upper 95% limit lies below. With fewer than six values there is no such
    limit, so that it can neither fail nor hold.

    Args:
        ratio: Time of another system ÷ ours, so that `least` = 1 says "ours is not slower".
        least: What is claimed.
    """
    if not ratio.is_resolved:
        return "undecided"
    return "fails" if ratio.high < least else "holds"


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed, interpolated between neighbours.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("a percentile needs at least one value")
    return float(np.percentile(np.asarray(values, dtype=float), percent))
