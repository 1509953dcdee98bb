"""Costs corrected by what steps took, against steps whose true cost is known."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from helium_agents.optimizer.step_cost import STEP_COSTS, Step, StepCost
from helium_agents.optimizer.step_sums import StepSums

GUESS = STEP_COSTS["cpu-medium"]


def scaled(decodes: float, prompts: float, positions: float) -> StepCost:
    return replace(
        GUESS,
        step_s=GUESS.step_s * decodes,
        decode_s=GUESS.decode_s * decodes,
        context_s=GUESS.context_s * decodes,
        prefill_s=GUESS.prefill_s * prompts,
        position_s=GUESS.position_s * positions,
    )


def steps(rng: random.Random, number: int) -> list[Step]:
    found = []
    for _ in range(number):
        decodes, prompt = rng.randrange(65), rng.choice([0, 0, 0, rng.randrange(1, 2048)])
        found.append(Step(decodes or 1, 500 * decodes, prompt, prompt * prompt / 2))
    return found


@pytest.mark.parametrize(
    "factors", [(1.0, 1.0, 1.0), (1.6, 0.7, 0.7), (0.5, 2.0, 1.0), (1.0, 1.0, 0.3), (1.2, 0.9, 3.0)]
)
def test_factors_are_found_in_spite_of_noise_and_pauses(
    factors: tuple[float, float, float],
) -> None:
    rng, true, sums = random.Random(0), scaled(*factors), StepSums()
    for step in steps(rng, 2000):
        seconds = true.seconds(step) * rng.uniform(0.9, 1.1)
        sums.add(step, seconds * (20.0 if rng.random() < 0.02 else 1.0))
    found = sums.corrected(GUESS)
    for step in (Step(1), Step(64, 32_000), Step(1, 0, 300, 45_000), Step(1, 0, 2048, 2_097_152)):
        assert found.seconds(step) == pytest.approx(true.seconds(step), rel=0.1)
    assert sums.num_steps == 2000


def test_the_time_of_all_steps_is_right_where_a_machine_is_unsteady() -> None:
    rng, sums, true_s = random.Random(4), StepSums(), 0.0
    made = steps(rng, 2000)
    for step in made:
        seconds = GUESS.seconds(step) * rng.uniform(1.0, 1.6)
        sums.add(step, seconds)
        true_s += seconds
    found = sums.corrected(GUESS)
    told_s = sum(found.seconds(step) for step in made)
    assert told_s == pytest.approx(true_s, rel=0.03)


def test_few_steps_change_little_and_none_nothing() -> None:
    sums = StepSums()
    assert sums.corrected(GUESS) == GUESS
    for step in steps(random.Random(1), 5):
        sums.add(step, 3 * GUESS.seconds(step))
    assert GUESS.decode_s <= sums.corrected(GUESS).decode_s < 1.5 * GUESS.decode_s


def test_what_was_long_ago_is_forgotten() -> None:
    rng, sums = random.Random(2), StepSums()
    for factor, number in ((3.0, 3000), (1.5, 10_000)):
        for step in steps(rng, number):
            sums.add(step, factor * GUESS.seconds(step))
    assert sums.corrected(GUESS).decode_s == pytest.approx(1.5 * GUESS.decode_s, rel=0.05)


def test_no_factor_is_without_bounds() -> None:
    sums = StepSums()
    for step in steps(random.Random(3), 1000):
        sums.add(step, 1000 * GUESS.seconds(step))
    assert sums.corrected(GUESS).decode_s <= 4 * GUESS.decode_s
    sums.add(Step(1), 0.0)
    assert sums.num_steps == 1000, "a step takes time"
