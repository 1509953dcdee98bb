"""Guesses: closed answers that were counted, and tools that follow each other."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helium_agents.optimizer.guesses import Histogram, guesses
from helium_agents.optimizer.profile import Profile
from helium_agents.optimizer.tool_patterns import ToolPatterns, ToolStep
from helium_agents.runtime.learning.profiles import decode_profile, encode_profile

VALUES = ('"a"', '"b"', '"c"')


def counted(answers: str, histogram: Histogram | None = None) -> Histogram:
    found = histogram or Histogram()
    for before, after in pairwise(" " + answers):
        found.observe("site", VALUES, None if before == " " else f'"{before}"', f'"{after}"')
    return found


class TestHistogram:
    def test_nothing_is_guessed_of_what_was_never_seen(self) -> None:
        assert guesses([counted("ab")], "elsewhere", VALUES, None) == []
        assert guesses([counted("ab")], "site", VALUES[:2], None) == []

    @given(st.text("abc", min_size=1, max_size=40), st.sampled_from([None, *VALUES]))
    def test_probabilities_add_up_and_none_is_certain(
        self, answers: str, previous: str | None
    ) -> None:
        found = guesses([counted(answers)], "site", VALUES, previous)
        assert sorted(guess.value for guess in found) == sorted(VALUES)
        assert sum(guess.probability for guess in found) == pytest.approx(1.0)
        assert all(0.0 < guess.probability < 1.0 for guess in found)

    def test_what_came_after_the_same_value_counts_most(self) -> None:
        known = counted("ab" * 20)
        after_a, after_b = (guesses([known], "site", VALUES, f'"{each}"')[0] for each in "ab")
        assert (after_a.value, after_b.value) == ('"b"', '"a"')
        assert after_a.probability > 0.9

    def test_after_a_new_value_it_is_what_comes_there_at_all(self) -> None:
        first = guesses([counted("a" * 30 + "b")], "site", VALUES, '"c"')[0]
        assert first.value == '"a"'
        assert 0.8 < first.probability < 0.95

    @given(st.text("abc", min_size=1, max_size=30), st.text("abc", min_size=1, max_size=30))
    def test_two_runs_count_as_one(self, one: str, two: str) -> None:
        apart = guesses([counted(one), counted(two)], "site", VALUES, None)
        together = counted(one)
        together.add_all(counted(two))
        assert guesses([together], "site", VALUES, None) == apart

    def test_older_answers_fade_and_the_size_is_bounded(self) -> None:
        known = counted("a" * 2000)
        counted("b" * 400, known)
        assert guesses([known], "site", VALUES, '"b"')[0].value == '"b"'
        for number in range(2000):
            known.observe(f"site-{number}", VALUES, None, '"a"')
        assert len(known.counts) <= 512
        assert guesses([known], "site-1999", VALUES, None)

    def test_what_is_none_of_the_values_does_not_count(self) -> None:
        known = Histogram()
        known.observe("site", VALUES, None, '"d"')
        known.observe("site", VALUES, None, None)
        assert known.counts == {}

    def test_it_is_kept_with_the_profile_and_without_any_text(self) -> None:
        profile = Profile("w", "m", answers=counted("abacab"))
        kept = decode_profile(encode_profile(profile))
        assert kept == profile
        assert "site" not in str(profile.answers) and '"a"' not in str(profile.answers)


def found(number: int) -> ToolStep:
    result = {"hits": [{"id": f"doc-{number}"}, {"id": "other"}]}
    return ToolStep("search", '{"query": "x"}', json.dumps(result))


class TestToolPatterns:
    def test_arguments_come_from_results_and_from_what_they_always_were(self) -> None:
        known = ToolPatterns()
        for number in range(9):
            arguments = json.dumps({"id": f"doc-{number}", "full": True})
            known.observe("agent", found(number), "fetch", arguments)
        guess = known.guess("agent", found(77))
        assert guess is not None
        assert json.loads(guess.value) == {
            "name": "fetch",
            "arguments": '{"id": "doc-77", "full": true}',
        }
        assert guess.probability == pytest.approx(0.9)

    def test_pages_are_turned(self) -> None:
        known = ToolPatterns()
        for page in range(1, 6):
            before = ToolStep("list", f'{{"topic":"t{page}","page":{page}}}', "...")
            known.observe("agent", before, "list", f'{{"topic":"t{page}","page":{page + 1}}}')
        guess = known.guess("agent", ToolStep("list", '{"topic":"u","page":41}', "..."))
        assert guess is not None
        assert json.loads(guess.value)["arguments"] == '{"topic":"u","page":42}'

    def test_the_first_call_has_the_question(self) -> None:
        known = ToolPatterns()
        for question in ("why?", "where?"):
            known.observe(
                "agent", ToolStep("", "", question), "search", f'{{"query": "{question}"}}'
            )
        guess = known.guess("agent", ToolStep("", "", "who?"))
        assert guess is not None
        assert json.loads(guess.value)["arguments"] == '{"query": "who?"}'

    def test_nothing_is_guessed_where_agents_usually_end(self) -> None:
        known = ToolPatterns()
        known.observe("agent", found(1), "fetch", '{"id": "doc-1"}')
        known.observe("agent", found(1), None)
        known.observe("agent", found(1), None)
        assert known.guess("agent", found(1)) is None
        assert known.guess("agent", ToolStep("", "", "?")) is None

    def test_what_varies_is_less_probable(self) -> None:
        known = ToolPatterns()
        for number in range(8):
            id_ = f"doc-{number}" if number % 2 else "elsewhere"
            known.observe("agent", found(number), "fetch", f'{{"id": "{id_}"}}')
        guess = known.guess("agent", found(9))
        assert guess is not None and guess.probability < 0.5

    def test_answers_that_are_no_json_are_no_calls(self) -> None:
        known = ToolPatterns()
        known.observe("agent", found(1), "fetch", "doc-1")
        assert known.guess("agent", found(1)) is None

    @given(st.lists(st.text('a{}0"', max_size=4), max_size=40))
    def test_it_never_fails_and_is_bounded(self, texts: list[str]) -> None:
        known = ToolPatterns()
        for text in texts:
            before = ToolStep(text, text, text)
            known.observe("agent", before, text or None, json.dumps({text: text}))
            guess = known.guess("agent", before)
            assert guess is None or 0.0 < guess.probability < 1.0
