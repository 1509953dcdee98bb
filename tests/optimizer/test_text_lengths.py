"""Characters of a token, of instructions and of data."""

from __future__ import annotations

import pytest

from helium_agents.optimizer.text_lengths import Prompt, TextLengths, text_lengths


def prompt(item: int, data_tokens: int = 100) -> Prompt:
    """Rules of 200 tokens of five characters each, and data of two characters a token."""
    rules, data = "word " * 200, f"{item:02d}" * data_tokens
    ids = [*range(200), *(1000 + item,) * (data_tokens + 8)]  # two headers of four
    return Prompt(item, [rules, data], ids)


def test_what_rows_have_in_common_is_told_from_what_is_their_own() -> None:
    found = text_lengths([prompt(item) for item in range(10, 20)])
    assert found.common == pytest.approx(5.0, rel=0.05)
    assert found.own == pytest.approx(2.0, rel=0.05)


def test_where_little_is_known_it_is_as_usual() -> None:
    assert text_lengths([]) == TextLengths(4.0, 4.0)
    assert text_lengths([Prompt(0, ["a"], [])]) == TextLengths(4.0, 4.0)


def test_of_one_row_all_counts_alike() -> None:
    found = text_lengths([prompt(10)])
    assert found.common == found.own == pytest.approx(1200 / 300, rel=0.05)


def test_where_few_tokens_are_common_the_mean_holds_for_them() -> None:
    found = text_lengths([Prompt(n, [f"{n}" + "abc" * 100], [n] * 108) for n in range(4)])
    assert found.common == found.own == pytest.approx(301 / 104, rel=0.01)
