"""Random rows in virtual time: cells in which the default schedule was slower than all open."""

from __future__ import annotations

import pytest

from benchmarks.random_rows import gain, random_cell


@pytest.mark.parametrize("number", [1, 21, 23])
def test_rows_that_ask_two_models_are_planned_on_both_engines(number: int) -> None:
    found = gain(random_cell(number, 2))
    assert found.first >= 0.98
    assert found.again >= 0.98


def test_rows_that_pause_are_planned_with_their_pauses() -> None:
    assert gain(random_cell(2, has_pauses=True)).again >= 0.98


@pytest.mark.parametrize("number", [4, 7])
def test_rows_that_await_one_call_after_the_other_are_not_planned_as_if_they_asked_all(
    number: int,
) -> None:
    found = gain(random_cell(number, is_one_by_one=True))
    assert found.first >= 0.98
    assert found.again >= 0.98
