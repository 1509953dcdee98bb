"""Profiles: what is kept of rows, how runs add up, what is predicted, and when it does not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helium_agents.optimizer.distribution import Distribution
from helium_agents.optimizer.drift import Drift
from helium_agents.optimizer.predict import predict
from helium_agents.optimizer.profile import (
    BLOCK_TOKENS,
    MOST_ROWS,
    MOST_TURNS,
    Profile,
    SeenCall,
    SeenRow,
    held_share,
)


def row(name: str, *, document: str = "", num_turns: int = 2, output_tokens: int = 20) -> SeenRow:
    """A conversation: instructions of three blocks that all have, a document of two, and turns."""
    names = ["all-0", "all-1", "all-2", f"{document or name}-a", f"{document or name}-b"]
    names += [f"{name}-{turn}" for turn in range(num_turns)]
    calls = tuple(
        SeenCall(
            "chat",
            (turn - 1,) if turn else (),
            (5 + turn) * BLOCK_TOKENS + 3,
            output_tokens,
            ((0, 5 + turn),),
            ((5 + turn, 6 + turn),),
        )
        for turn in range(num_turns)
    )
    blocks = b"".join(hash_of(each) for each in names)
    return SeenRow(calls, blocks)


def hash_of(name: str) -> bytes:
    return name.encode().rjust(8, b".")[:8]


class TestDistribution:
    @given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50))
    def test_quantiles_are_within_a_tenth_and_the_bounds_exact(self, values: list[float]) -> None:
        found = Distribution()
        for value in values:
            found.add(value)
        ordered = sorted(values)
        assert (found.least, found.most) == (ordered[0], ordered[-1])
        assert found.mean == pytest.approx(sum(values) / len(values))
        median = ordered[(len(ordered) - 1) // 2]
        assert median / 1.2 <= found.quantile(0.5) <= median * 1.2

    def test_older_values_count_less_where_there_are_very_many(self) -> None:
        old, new = Distribution(), Distribution()
        for _ in range(4000):
            old.add(1.0)
            new.add(3.0)
        old.add_all(new)
        assert old.number <= 6000
        assert old.mean > 2.2

    def test_of_no_values_nothing_is_known(self) -> None:
        assert (Distribution().mean, Distribution().deviation) == (0, 0)
        assert Distribution().quantile(0.5) == 0


class TestPredict:
    def test_what_most_rows_share_all_copies_share_and_nothing_else(self) -> None:
        found = predict([row("a"), row("b"), row("c"), row("d")], range(10, 18))
        assert list(found.items) == list(range(10, 18))
        prompts = [set(calls[0].prompt) for calls in found.rows]
        common = set.intersection(*prompts)
        assert sum(found.piece_tokens[piece] for piece in common) == 3 * BLOCK_TOKENS
        assert all(one & other == common for one in prompts for other in prompts if one != other)

    def test_a_document_of_some_rows_is_shared_within_a_round_of_copies(self) -> None:
        seen = [row(name, document=f"doc{name in 'ab'}") for name in "abcd"]
        found = predict(seen, range(8))
        first = [set(calls[0].prompt) for calls in found.rows]
        tokens = found.piece_tokens
        shared = [
            sum(tokens[piece] for piece in first[one] & first[other])
            for one, other in ((0, 1), (0, 2), (0, 4), (0, 5))
        ]
        assert shared == [5 * BLOCK_TOKENS, 3 * BLOCK_TOKENS, 3 * BLOCK_TOKENS, 3 * BLOCK_TOKENS]

    def test_answers_are_part_of_prompts_that_go_on_after_them(self) -> None:
        found = predict([row("a"), row("b")], [0])
        ((one, two),) = found.rows
        held = [*one.prompt[:-1], *one.answer]
        assert list(two.prompt[: len(held)]) == held
        assert two.inputs == (0,)
        assert one.prompt_tokens == 5 * BLOCK_TOKENS + 3
        assert sum(found.piece_tokens[piece] for piece in one.prompt) == one.prompt_tokens

    def test_loops_occur_as_often_as_they_did(self) -> None:
        seen = [row("a", num_turns=1), row("b", num_turns=5)]
        assert [len(calls) for calls in predict(seen, range(6)).rows] == [1, 5, 1, 5, 1, 5]


class TestProfile:
    def test_runs_add_up_and_the_newest_rows_stay(self) -> None:
        old, new = Profile("w", "m"), Profile("w", "m")
        for profile, length in ((old, 10), (new, 30)):
            for number in range(MOST_ROWS):
                profile.calls.add(2)
                profile.declared_rows += 1
                profile.site("chat").turn(0).output_tokens.add(length)
                profile.rows.append(row(f"{length}-{number}", output_tokens=length))
        old.add_all(new)
        assert old.num_rows == 2 * MOST_ROWS
        assert old.is_declared
        assert old.site("chat").turn(0).output_tokens.mean == 20
        assert {each.calls[0].output_tokens for each in old.rows} == {30}

    def test_turns_beyond_the_last_count_with_it(self) -> None:
        site = Profile().site("loop")
        for turn in range(3 * MOST_TURNS):
            site.turn(turn).output_tokens.add(1)
        assert len(site.turns) == MOST_TURNS
        assert site.all_turns().output_tokens.number == 3 * MOST_TURNS

    def test_a_conversation_holds_what_it_had_before(self) -> None:
        assert held_share([row("a", num_turns=4)]) == 1.0
        assert held_share([row("a", num_turns=1)]) == 0.0


def profile(output_tokens: float = 20, prompt_tokens: float = 100, num_calls: int = 2) -> Profile:
    """Of eight equal rows."""
    found = Profile("w", "m")
    for _ in range(8):
        found.calls.add(num_calls)
        found.site("chat").calls_per_row.add(num_calls)
        for turn in range(num_calls):
            found.site("chat").turn(turn).prompt_tokens.add(prompt_tokens)
            found.site("chat").turn(turn).output_tokens.add(output_tokens)
    return found


class TestDrift:
    def watch(
        self, drift: Drift, *, output_tokens: int = 20, prompt_tokens: int = 100, num_calls: int = 2
    ) -> None:
        for number in range(8):
            drift.row_began(number)
            for turn in range(num_calls):
                drift.call_began(number, "chat", turn, prompt_tokens)
        for number in range(8):
            for turn in range(num_calls):
                drift.call_ended(number, "chat", turn, output_tokens)
            drift.row_ended(number, num_calls)

    def test_what_is_as_expected_fits(self) -> None:
        drift = Drift(profile())
        self.watch(drift)
        assert drift.reason == ""

    @pytest.mark.parametrize(
        ("expected", "reason"),
        [
            (profile(output_tokens=60), "answers of chat have 20 tokens instead of 60"),
            (profile(output_tokens=7), "answers of chat have 20 tokens instead of 7"),
            (profile(prompt_tokens=400), "prompts of chat have 100 tokens instead of 400"),
            (profile(num_calls=1), "chat was called 4 times in a row, and 1 at most before"),
            (profile(num_calls=6), "rows make 2.0 calls instead of 6.0"),
        ],
    )
    def test_what_is_not_is_named(self, expected: Profile, reason: str) -> None:
        drift = Drift(expected)
        self.watch(drift, num_calls=4 if "called" in reason else 2)
        assert drift.reason == reason

    def test_short_answers_that_come_first_do_not_count_before_the_long_ones(self) -> None:
        expected = Profile()
        lengths = [5, 5, 5, 5, 40, 40, 40, 40]
        for length in lengths:
            expected.calls.add(1)
            expected.site("chat").calls_per_row.add(1)
            expected.site("chat").turn(0).prompt_tokens.add(100)
            expected.site("chat").turn(0).output_tokens.add(length)
        drift = Drift(expected)
        for number in range(8):
            drift.call_began(number, "chat", 0, 100)
        for number, length in enumerate(lengths):
            drift.call_ended(number, "chat", 0, length)
            assert drift.reason == ""

    def test_prefixes_that_are_gone_are_noticed(self) -> None:
        drift = Drift(profile())
        for _ in range(10):
            drift.hit(1000, 990)
        assert drift.reason == ""
        for _ in range(15):
            drift.hit(1000, 10)
        assert drift.reason.endswith("was there still")

    def test_of_few_rows_nothing_is_concluded(self) -> None:
        few = Profile()
        few.calls.add(9)
        few.site("chat").turn(0).output_tokens.add(1000)
        drift = Drift(few)
        self.watch(drift)
        assert drift.reason == ""
