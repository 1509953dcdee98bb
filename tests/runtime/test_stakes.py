"""Stakes: how probable what a guess stands on is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from helium_agents.optimizer.guesses import Guess
from helium_agents.optimizer.speculation_budget import Budget
from helium_agents.runtime.speculation.stakes import Stakes
from helium_agents.runtime.speculation.trial import Trial

GUESS = Guess("yes", 0.8, "predict")
NOBODY = cast(Any, None)


class Predicted:
    guess = GUESS


def trial(above: Trial | None = None) -> Trial:
    return Trial(NOBODY, NOBODY, "site", cast(Any, Predicted), NOBODY, until_s=0.0, above=above)


def test_a_guess_is_as_probable_as_all_below_it_of_which_the_truth_is_not_known() -> None:
    stakes = Stakes(Budget(), NOBODY, NOBODY, is_cautious=True)
    one = stakes.chance("site", GUESS)
    first = trial()
    second = trial(first)
    third = trial(second)
    assert stakes.chance_of(third) == pytest.approx(one**3)
    second.is_right = True  # it was computed early: the first is still open
    assert stakes.chance_of(third) == pytest.approx(one**2)
    first.is_right = True
    assert stakes.chance_of(third) == pytest.approx(one)
