"""Intervals against exact coverage, and the rule that decides a claim."""

from __future__ import annotations

import itertools
import math
import random
import statistics as stdlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.statistics import (
    MIN_VALUES,
    Interval,
    at_least,
    median_interval,
    paired_ratio,
    percentile,
)

VALUES = st.lists(st.floats(0.1, 100), min_size=1, max_size=40)


@pytest.mark.parametrize("num_values", range(1, 15))
def test_the_stated_confidence_is_the_coverage(num_values: int) -> None:
    """All ways in which n values can fall on either side of the true median, equally likely."""
    interval = median_interval(list(range(num_values)))
    low, high = int(interval.low), int(interval.high)
    enclosed = 0
    for sides in itertools.product((0, 1), repeat=num_values):
        below = sum(sides)  # the median lies between the values number `below` - 1 and `below`
        enclosed += low < below <= high
    assert interval.confidence == pytest.approx(enclosed / 2**num_values)


@pytest.mark.parametrize("num_values", range(MIN_VALUES, 60))
def test_the_interval_is_the_narrowest_symmetric_one(num_values: int) -> None:
    interval = median_interval(list(range(num_values)))
    rank = int(interval.low)
    assert rank == num_values - 1 - interval.high
    assert interval.confidence >= 0.95
    narrower = 1 - 2 * sum(math.comb(num_values, k) for k in range(rank + 2)) / 2**num_values
    assert narrower < 0.95


@pytest.mark.parametrize(("num_values", "confidence"), [(1, 0.0), (3, 0.75), (5, 0.9375)])
def test_few_values_give_their_range_and_say_what_it_is_worth(
    num_values: int, confidence: float
) -> None:
    interval = median_interval([5.0, 1.0, 9.0, 2.0, 7.0][:num_values])
    values = sorted([5.0, 1.0, 9.0, 2.0, 7.0][:num_values])
    assert (interval.low, interval.high) == (values[0], values[-1])
    assert interval.confidence == confidence
    assert not interval.is_resolved


def test_seven_values_are_enough() -> None:
    interval = median_interval([7, 1, 2, 3, 4, 5, 6])
    assert interval == Interval(4, 1, 7, 1 - 2 / 2**7, 7)
    assert interval.is_resolved


def test_intervals_enclose_the_median_of_a_skewed_distribution() -> None:
    draw = random.Random(1)
    enclosed = 0
    for _ in range(2_000):
        interval = median_interval([draw.expovariate(1.0) for _ in range(15)])
        enclosed += interval.low <= math.log(2) <= interval.high
    assert enclosed / 2_000 >= 0.95


@given(VALUES)
def test_the_median_is_the_median(values: list[float]) -> None:
    interval = median_interval(values)
    assert interval.median == pytest.approx(stdlib.median(values))
    assert interval.low <= interval.median * (1 + 1e-12)
    assert interval.high >= interval.median * (1 - 1e-12)
    assert interval.num_values == len(values)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_no_median_of_nothing(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        median_interval(values)


def test_pairs_cancel_what_both_suffered() -> None:
    ours = [1.0, 5.0, 2.0, 8.0, 1.0, 3.0, 4.0]  # a machine of changing speed
    ratio = paired_ratio([1.2 * seconds for seconds in ours], ours)
    assert ratio.median == pytest.approx(1.2)
    assert ratio.high - ratio.low < 1e-9


@pytest.mark.parametrize(
    ("times", "reference", "message"),
    [([1.0], [1.0, 2.0], "no pairs"), ([1.0], [0.0], "above 0"), ([], [], "at least one")],
)
def test_what_is_no_pair(times: list[float], reference: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_ratio(times, reference)


@pytest.mark.parametrize(
    ("ratios", "outcome"),
    [
        ([0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96], "fails"),  # all below: clearly slower
        ([0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 1.0], "holds"),  # the limit reaches 1
        ([1.1] * 7, "holds"),
        ([0.5, 0.5, 0.5], "undecided"),
        ([1.5], "undecided"),
    ],
)
def test_a_claim_fails_only_below_its_limit(ratios: list[float], outcome: str) -> None:
    assert at_least(median_interval(ratios)) == outcome


def test_another_claim_than_one() -> None:
    ratio = median_interval([1.2] * 6)
    assert at_least(ratio, 1.2) == "holds"
    assert at_least(ratio, 1.25) == "fails"


def test_percentiles() -> None:
    values = [float(value) for value in range(101)]
    assert percentile(values, 50) == 50
    assert percentile(values, 95) == 95
    assert percentile([3.0], 95) == 3.0
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 50)
