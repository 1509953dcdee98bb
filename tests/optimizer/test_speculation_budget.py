"""The budget of speculation: what is worth a guess, and when guesses end."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents.errors import SessionError
from helium_agents.optimizer.guesses import Guess
from helium_agents.optimizer.speculation_budget import Budget, BudgetState, Posterior
from helium_agents.optimizer.speculation_cost import (
    GuessedCall,
    Load,
    Outlook,
    Outside,
    outlook,
    prompt_seconds,
    request_seconds,
)
from helium_agents.optimizer.step_cost import STEP_COSTS

SURE, HALF = Guess("true", 0.9, "histogram"), Guess("true", 0.5, "histogram")
CHEAP = Outlook(saved_s=1.0, cost_s=0.1, tokens=10)
DEAR = Outlook(saved_s=0.1, cost_s=10.0, tokens=10)


class TestBudget:
    @pytest.mark.parametrize(
        "values", [{"max_extra_tokens": -1}, {"confidence": 1}, {"trials": 0}, {"caution": "x"}]
    )
    def test_nonsense_is_refused(self, values: dict[str, float]) -> None:
        with pytest.raises(SessionError, match=next(iter(values))):
            Budget(**values)  # type: ignore[arg-type]


class TestPosterior:
    @settings(deadline=None)
    @given(st.floats(0.01, 0.99), st.lists(st.booleans(), max_size=60))
    def test_the_limit_is_below_the_mean_and_moves_with_what_is_seen(
        self, probability: float, seen: list[bool]
    ) -> None:
        posterior = Posterior(probability)
        for is_right in seen:
            before = posterior.at_least(0.84)
            posterior.note(is_right)
            after = posterior.at_least(0.84)
            assert after >= before - 1e-9 if is_right else after <= before + 1e-9
            assert 0.0 <= after < posterior.right / (posterior.right + posterior.wrong)

    @pytest.mark.parametrize("truth", [0.3, 0.7, 0.97])
    def test_it_ends_near_the_truth_whatever_was_said(self, truth: float) -> None:
        rng, posterior = random.Random(1), Posterior(0.5)
        for _ in range(2000):
            posterior.note(rng.random() < truth)
        assert truth - 0.12 < posterior.at_least(0.84) < truth + 0.06


class TestWorth:
    def test_what_wins_more_than_it_costs_is_worth_it(self) -> None:
        state = BudgetState(Budget())
        assert state.worth("site", SURE, CHEAP) is not None
        assert state.worth("site", SURE, DEAR) is None

    def test_a_cautious_one_wants_more(self) -> None:
        even = Outlook(saved_s=0.2, cost_s=1.0, tokens=10)
        assert BudgetState(Budget(caution=0.1)).worth("site", SURE, even)
        assert not BudgetState(Budget(caution=2.0)).worth("site", SURE, even)

    def test_what_a_predictor_says_is_believed_less_than_what_came_of_it(self) -> None:
        state = BudgetState(Budget())
        even = Outlook(saved_s=0.4, cost_s=1.0, tokens=10)
        assert state.worth("site", SURE, even)
        for _ in range(20):
            state.note("site", SURE, is_right=False)
        assert not state.worth("site", SURE, even)
        assert state.worth("elsewhere", SURE, even)
        assert state.worth("site", SURE._replace(source="other"), even)

    def test_a_guess_on_top_of_others_is_wrong_when_one_of_them_is(self) -> None:
        even = Outlook(saved_s=0.4, cost_s=1.0, tokens=10)
        assert BudgetState(Budget()).worth("site", SURE, even)
        assert not BudgetState(Budget()).worth("site", SURE, even, above=0.8)

    def test_improbable_guesses_are_not_made_even_where_nobody_waits(self) -> None:
        idle = Outlook(saved_s=1.0, cost_s=0.0, tokens=10)
        state = BudgetState(Budget())
        assert state.worth("site", HALF._replace(probability=0.1), idle) is None
        assert not state.is_off("site")

    @settings(deadline=None)
    @given(st.floats(0.3, 0.99), st.integers(0, 2**16))
    def test_wrong_guesses_cost_no_more_than_the_share_and_what_is_open(
        self, truth: float, seed: int
    ) -> None:
        rng, budget = random.Random(seed), Budget(window_tokens=5000)
        state = BudgetState(budget)
        demanded = wasted = largest = 0.0
        for _ in range(300):
            needed = rng.randrange(1, 300)
            state.demanded(needed)
            demanded += needed
            tokens = float(rng.randrange(1, 400))
            guess = SURE._replace(probability=truth)
            stake = state.worth("site", guess, Outlook(1.0, 0.0, tokens))
            is_right = rng.random() < truth
            state.note("site", guess, is_right)
            if stake is None:
                continue
            largest = max(largest, tokens)
            if is_right:
                state.used(stake, 1.0)
            else:
                state.wasted(stake, tokens)
                wasted += tokens
        allowed = budget.max_extra_tokens * (demanded + budget.first_tokens)
        # what fades of the demanded tokens fades of the wasted ones too
        assert wasted <= 1.2 * allowed + largest

    def test_open_guesses_are_counted_until_they_end(self) -> None:
        state = BudgetState(Budget(first_tokens=1000))
        large = Outlook(1.0, 0.0, 300.0)
        stakes = [stake for _ in range(9) if (stake := state.worth("site", SURE, large))]
        assert 0 < len(stakes) < 9
        left = state.left_tokens
        state.used(stakes[0], 1.0)
        assert state.left_tokens > left
        state.wasted(stakes[1], 300)
        assert state.left_tokens < left


class TestCallsOutside:
    """Calls for which nothing is guessed, and what wrong guesses may take from them."""

    HARMFUL = Outlook(saved_s=1.0, cost_s=0.5, tokens=1, outside_s=0.5)

    def test_they_are_spared_until_they_take_long_enough(self) -> None:
        state = BudgetState(Budget(max_delay=0.02))
        assert state.worth("site", SURE, self.HARMFUL) is None
        assert state.worth("site", SURE, self.HARMFUL._replace(outside_s=0.0))
        state.outside(24.0)
        assert state.worth("site", SURE, self.HARMFUL) is None
        state.outside(200.0)
        assert state.worth("site", SURE, self.HARMFUL)

    def test_their_time_is_dearer_the_less_of_it_is_left(self) -> None:
        state = BudgetState(Budget(max_delay=0.02))
        even = Outlook(saved_s=0.3, cost_s=0.5, tokens=1, outside_s=0.5)
        state.outside(500.0)
        stakes = []
        while stake := state.worth("site", SURE, even):
            stakes.append(stake)
        assert 5 < len(stakes) < 20  # not all of the ten seconds
        assert state.worth("site", SURE, even._replace(saved_s=3.0))

    @settings(deadline=None)
    @given(st.floats(0.3, 0.99), st.integers(0, 2**16))
    def test_never_is_more_taken_than_the_share(self, truth: float, seed: int) -> None:
        rng = random.Random(seed)
        state = BudgetState(Budget(max_delay=0.05, max_extra_tokens=1e9))
        took_s = delayed_s = 0.0
        for _ in range(300):
            state.demanded(100)
            state.outside(1.0)
            took_s += 1.0
            outside_s = rng.random()
            excess_s = outside_s * rng.uniform(-1.0, 1.0)
            found = Outlook(10.0, outside_s, 100, outside_s, excess_s)
            stake = state.worth("site", SURE._replace(probability=truth), found)
            if stake is None:
                continue
            if rng.random() < truth:
                state.used(stake, 1.0)
                delayed_s += excess_s
            else:
                state.wasted(stake, 100)
                delayed_s += outside_s
        assert delayed_s <= 0.05 * took_s

    def test_right_guesses_take_from_more_than_usual(self) -> None:
        state = BudgetState(Budget(max_delay=0.02))
        state.outside(100.0)
        crowded = self.HARMFUL._replace(excess_s=0.3)
        for _ in range(4):
            stake = state.worth("site", SURE, crowded)
            assert stake is not None
            state.used(stake, 1.0)
        assert state.worth("site", SURE, crowded) is None  # 0.5 of the 0.8 that are left may go
        few = self.HARMFUL._replace(outside_s=0.1, excess_s=-0.5)
        stake = state.worth("site", SURE, few)
        assert stake is not None
        state.used(stake, 1.0)
        assert state.worth("site", SURE, crowded)

    def test_what_is_won_while_they_are_few_is_not_saved_up(self) -> None:
        state = BudgetState(Budget(max_delay=0.02))
        state.outside(40.0)
        for _ in range(10):
            stake = state.worth("site", SURE, self.HARMFUL._replace(excess_s=-0.5))
            assert stake is not None
            state.used(stake, 1.0)
        assert state.worth("site", SURE, self.HARMFUL._replace(outside_s=0.9)) is None

    def test_a_guess_waits_for_short_ones_and_not_for_long_ones(self) -> None:
        state = BudgetState(Budget())
        crowded = self.HARMFUL._replace(excess_s=0.3)
        assert state.is_better_later("site", SURE, crowded, usual_s=0.4)
        assert not state.is_better_later("site", SURE, crowded, usual_s=4.0)
        assert not state.is_better_later("site", SURE, self.HARMFUL, usual_s=0.4)  # none too many
        assert state.is_better_later("site", SURE, crowded, usual_s=0.8, above=0.1)


class TestSwitchingOff:
    def test_a_site_is_left_alone_after_so_many_trials_and_tried_again_rarely(self) -> None:
        state = BudgetState(Budget(trials=50))
        for _ in range(50):
            assert not state.is_off("site")
            assert state.worth("site", SURE, DEAR) is None
        asked = [state.is_off("site") for _ in range(500)]
        assert asked.count(False) == 10
        assert not state.is_off("elsewhere")

    def test_it_comes_back_when_it_pays(self) -> None:
        state = BudgetState(Budget(trials=10))
        for _ in range(10):
            state.worth("site", SURE, DEAR)
        stakes = [stake for _ in range(10) if (stake := state.worth("site", SURE, CHEAP))]
        assert len(stakes) == 1
        state.used(stakes[0], 1.0)
        assert not state.is_off("site")
        assert state.worth("site", SURE, CHEAP) is not None

    def test_wrong_guesses_switch_it_off_too(self) -> None:
        state = BudgetState(Budget(trials=10, max_extra_tokens=100.0))
        for _ in range(10):
            stake = state.worth("site", SURE, Outlook(1.0, 0.5, 10))
            assert stake is not None
            state.wasted(stake, 10)
        assert state.is_off("site")


class TestOutlook:
    def test_an_idle_engine_wins_the_time_until_the_truth(self) -> None:
        call = GuessedCall(prompt_tokens=500, cached_tokens=400, output_tokens=100)
        for cost in STEP_COSTS.values():
            short = outlook(cost, call, window_s=0.1, load=Load(0))
            assert short.saved_s == pytest.approx(0.1)
            assert short.cost_s == 0.0
            whole = outlook(cost, call, window_s=1000, load=Load(0))
            alone_s = request_seconds(cost, call, 0) - cost.request_s - cost.reply_s
            assert whole.saved_s == pytest.approx(alone_s, rel=0.05)
            assert whole.tokens == 200

    @settings(deadline=None)
    @given(st.integers(1, 64), st.integers(1, 2000), st.floats(0.0, 10.0))
    def test_more_demanded_calls_cost_more_and_nothing_is_negative(
        self, num_demanded: int, prompt_tokens: int, window_s: float
    ) -> None:
        cost = STEP_COSTS["cpu-medium"]
        call = GuessedCall(prompt_tokens, 0, 30)
        found = outlook(cost, call, window_s, Load(num_demanded))
        more = outlook(cost, call, window_s, Load(num_demanded + 1))
        assert 0.0 <= found.saved_s <= window_s
        assert found.cost_s >= cost.prefill_seconds(prompt_tokens)
        assert more.cost_s > found.cost_s

    def test_in_a_busy_engine_a_delay_is_longer(self) -> None:
        cost, call = STEP_COSTS["cpu-medium"], GuessedCall(300, 0, 60)
        idle = outlook(cost, call, 0.1, Load(1))
        longer = 1 + (8 * cost.decode_s + 8 * 1.5 * cost.prefill_s) / cost.step_s
        full = outlook(cost, call, 0.1, Load(8, prompt_tokens=1.5))
        assert full.cost_s == pytest.approx(8 * longer * idle.cost_s, rel=0.1)

    def test_a_large_gpu_lends_what_two_cores_do_not(self) -> None:
        """A specialist beside a classifier: on the CPU its prompt costs more than is shared."""
        call = GuessedCall(prompt_tokens=300, cached_tokens=0, output_tokens=60)
        state = BudgetState(Budget())
        for name, is_worth in (("h100-8b", True), ("cpu-medium", False)):
            found = outlook(STEP_COSTS[name], call, window_s=0.1, load=Load(4))
            assert (state.worth(name, SURE, found) is not None) is is_worth

    def test_who_wins_by_a_guess_waits_for_its_prompt_right_or_wrong(self) -> None:
        call, cost = GuessedCall(300, 0, 60), STEP_COSTS["cpu-medium"]
        tool, own = outlook(cost, call, 0.5, Load(1)), outlook(cost, call, 0.5, Load(1, 1))
        assert own.saved_s == pytest.approx(tool.saved_s - own.cost_s)
        short = outlook(cost, call, 0.1, Load(1, 1))  # what delays the truth leaves it more time
        assert short.saved_s < 0.1 < short.cost_s
        assert own.cost_s > cost.prefill_seconds(300)

    def test_calls_outside_are_those_of_others_or_as_many_as_usual(self) -> None:
        call, cost = GuessedCall(300, 0, 60), STEP_COSTS["cpu-medium"]
        assert outlook(cost, call, 0.5, Load(2, 1)).outside_s == 0.0
        now = outlook(cost, call, 0.5, Load(2, 1, Outside(1, 1.0)))
        assert 0.0 < now.outside_s < now.cost_s
        soon = outlook(cost, call, 0.5, Load(1, 1, Outside(0, 0.5)))
        assert 0.4 * now.outside_s < soon.outside_s < 0.5 * now.outside_s

    def test_a_right_guess_costs_what_more_than_usual_wait_for_it(self) -> None:
        call, cost = GuessedCall(300, 0, 60), STEP_COSTS["cpu-medium"]
        as_usual, crowded, empty = (
            outlook(cost, call, 0.5, Load(2, 1, Outside(number, 1.0))) for number in (1, 3, 0)
        )
        assert as_usual.excess_s == 0.0
        assert crowded.excess_s == pytest.approx(2 * as_usual.outside_s)
        assert empty.excess_s == pytest.approx(-as_usual.outside_s)

    def test_a_guess_goes_after_the_prompt_and_what_is_under_way(self) -> None:
        cost, call = STEP_COSTS["cpu-medium"], GuessedCall(300, 100, 1)
        alone = prompt_seconds(cost, call, 0)
        assert alone == pytest.approx(cost.request_s + cost.prefill_seconds(200, 100))
        assert prompt_seconds(cost, call, 8) - alone > cost.step_s

    def test_blocks_of_others_are_part_of_the_cost(self) -> None:
        cost = STEP_COSTS["h100-8b"]
        free = outlook(cost, GuessedCall(300, 0, 60), 0.1, Load(4))
        full = outlook(cost, GuessedCall(300, 0, 60, evicted_tokens=5000), 0.1, Load(4))
        assert full.cost_s == pytest.approx(free.cost_s + cost.prefill_seconds(5000))
