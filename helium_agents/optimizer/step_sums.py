"""The cost of steps corrected by what steps really took: least squares of relative errors.

A cost is measured in a few seconds, when an engine starts; its true steps are other batches, on a
machine that may be busier or cooler. Two factors are fitted, one for what a decode costs and one
for what a prompt costs. Errors count relatively, so that a step during which the machine did
something else weighs no more than any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from helium_agents.optimizer.step_cost import Step, StepCost

_NUM_FEATURES = 5
NUM_SUMS: Final = 1 + _NUM_FEATURES + _NUM_FEATURES * _NUM_FEATURES
"""The number of steps, and sums of products of what was computed in them and of their times."""

_KEPT = 0.9995
"""How much an older step counts for each newer one: the last two thousand tell."""

_PRIOR_STEPS = 20.0
"""What was measured before counts as much as so many steps."""

_MOST = 4.0
"""No factor is larger, or smaller than its inverse."""


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
        scaled = (
            1 / seconds,
            step.decodes / seconds,
            step.context_tokens / seconds,
            step.prefill_tokens / seconds,
            step.prefill_positions / seconds,
        )
        values = self.values
        values[0] += 1
        for row, one in enumerate(scaled):
            place = 1 + row
            values[place] = values[place] * _KEPT + one
            place = 1 + _NUM_FEATURES * (1 + row)
            for column, other in enumerate(scaled):
                values[place + column] = values[place + column] * _KEPT + one * other

    def corrected(self, cost: StepCost) -> StepCost:
        """A cost with both of its factors as the steps say."""
        decode = (cost.step_s, cost.decode_s, cost.context_s, 0.0, 0.0)
        prefill = (0.0, 0.0, 0.0, cost.prefill_s, cost.position_s)
        dd = self._product(decode, decode) + _PRIOR_STEPS
        dp = self._product(decode, prefill)
        pp = self._product(prefill, prefill) + _PRIOR_STEPS
        d = self._with_time(decode) + _PRIOR_STEPS
        p = self._with_time(prefill) + _PRIOR_STEPS
        determinant = dd * pp - dp * dp  # at least the square of the prior's weight
        decodes = _bounded((d * pp - p * dp) / determinant)
        prompts = _bounded((p * dd - d * dp) / determinant)
        return replace(
            cost,
            step_s=cost.step_s * decodes,
            decode_s=cost.decode_s * decodes,
            context_s=cost.context_s * decodes,
            prefill_s=cost.prefill_s * prompts,
            position_s=cost.position_s * prompts,
        )

    def _with_time(self, weights: Sequence[float]) -> float:
        return sum(w * v for w, v in zip(weights, self.values[1:], strict=False))

    def _product(self, one: Sequence[float], other: Sequence[float]) -> float:
        start = 1 + _NUM_FEATURES
        return sum(
            weight * weight_2 * self.values[start + _NUM_FEATURES * row + column]
            for row, weight in enumerate(one)
            for column, weight_2 in enumerate(other)
        )


def _bounded(factor: float) -> float:
    return min(_MOST, max(1 / _MOST, factor))
