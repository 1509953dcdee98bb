"""The cost of steps corrected by what steps really took: weighted least squares.

A cost is measured in a few seconds, when an engine starts; its true steps are other batches, on a
machine that may be busier or cooler. So its figures get factors: first one for what a decode costs
and one for what a prompt costs, which few steps tell, then each figure one of its own. A step
counts by the time that it took: the sum of squared errors, each divided by the step's time, is
least. So the time of whole runs comes out right, and a step during which the machine did something
else weighs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import mul
from typing import Final

from helium_agents.optimizer.step_cost import Step, StepCost

_FIGURES: Final = ("step_s", "decode_s", "context_s", "prefill_s", "position_s")
_NUM_FIGURES: Final = len(_FIGURES)
NUM_SUMS: Final = 1 + _NUM_FIGURES + _NUM_FIGURES * _NUM_FIGURES
"""The number of steps, sums of what was computed in them, and sums of the products of these, each
divided by the step's time."""

_KEPT = 0.9995
"""How much an older step counts for each newer one: the last two thousand tell."""

_NUM_DECODE: Final = 3
"""The first figures are of decodes, the others of prompts."""

_PRIOR_STEPS, _OWN_STEPS = 20.0, 2.0
"""What was measured before counts as much as so many steps, and the first two factors beside a
figure's own as so many."""

_MOST = 4.0
"""No factor is larger, or smaller than its inverse."""

_MOST_SWEEPS, _CLOSE = 200, 1e-6


class StepSums:
    """Sums over steps, from which costs can be fitted.

    Args:
        values: What another one has as `values`.

    Attributes:
        values: `NUM_SUMS` of them; the first is how many steps there were.
    """

    def __init__(self, values: Sequence[float] | None = None) -> None:
        self.values = [0.0] * NUM_SUMS if values is None else [*values]

    @property
    def num_steps(self) -> int:
        """How many there were."""
        return round(self.values[0])

    def add(self, step: Step, seconds: float) -> None:
        """A step was made."""
        if seconds <= 0:
            return
        computed = (
            1.0,
            step.decodes,
            step.context_tokens,
            step.prefill_tokens,
            step.prefill_positions,
        )
        values = self.values
        values[0] += 1
        for row, one in enumerate(computed):
            place = 1 + row
            values[place] = values[place] * _KEPT + one
            place = 1 + _NUM_FIGURES * (1 + row)
            for column, other in enumerate(computed):
                values[place + column] = values[place + column] * _KEPT + one * other / seconds

    def corrected(self, cost: StepCost) -> StepCost:
        """A cost with each of its figures as the steps say; those that they hardly show stay."""
        figures = [getattr(cost, name) for name in _FIGURES]
        totals_s = [one * each for one, each in zip(figures, self.values[1:], strict=False)]
        if not sum(totals_s):
            return cost
        step_s = sum(totals_s) / self.values[1]
        products = [
            [one * other * each for other, each in zip(figures, self._row(row), strict=True)]
            for row, one in enumerate(figures)
        ]
        halves = [_halves(row) for row in products]
        first = _fitted(
            [_halves(column) for column in zip(*halves, strict=True)],
            _halves(totals_s),
            (1.0, 1.0),
            _PRIOR_STEPS * step_s,
        )
        prior = [first[0]] * _NUM_DECODE + [first[1]] * (_NUM_FIGURES - _NUM_DECODE)
        factors = _fitted(products, totals_s, prior, _OWN_STEPS * step_s)
        changed = [one * factor for one, factor in zip(figures, factors, strict=True)]
        return replace(cost, **dict(zip(_FIGURES, changed, strict=True)))

    def _row(self, row: int) -> Sequence[float]:
        place = 1 + _NUM_FIGURES * (1 + row)
        return self.values[place : place + _NUM_FIGURES]


def _halves(values: Sequence[float]) -> tuple[float, float]:
    """The sums of what is of decodes, and of what is of prompts."""
    return sum(values[:_NUM_DECODE]), sum(values[_NUM_DECODE:])


def _fitted(
    products: Sequence[Sequence[float]],
    totals_s: Sequence[float],
    prior: Sequence[float],
    weight_s: float,
) -> list[float]:
    """The factors with the least squared errors: one after another, as often as something moves.

    That ends where none can be better, since the sum is convex and the bounds are of single ones.
    """
    factors = [*prior]
    for _ in range(_MOST_SWEEPS):
        before = [*factors]
        for row, product in enumerate(products):
            others = sum(map(mul, product, factors)) - product[row] * factors[row]
            best = (totals_s[row] + weight_s * prior[row] - others) / (product[row] + weight_s)
            factors[row] = min(_MOST, max(1 / _MOST, best))
        if all(abs(a - b) < _CLOSE for a, b in zip(before, factors, strict=True)):
            break
    return factors
