"""How long rows take with right guesses: the longest chain, and engines that calls share."""

from __future__ import annotations

import pytest

from helium_agents.optimizer.right_guesses import TimedCall, row_ends


def chain(number: int, row: int = 0, first: int = 0, **options: float | str) -> list[TimedCall]:
    """Calls of a second each, one after another, any of which may be guessed."""
    calls = []
    for place in range(first, first + number):
        after = (place - 1,) if place > first else ()
        calls.append(TimedCall(row, after, frozenset(after), 0.5, 1.0, **options))  # type: ignore[arg-type]
    return calls


def ends(calls: list[TimedCall], *, are_guessed: bool, own_share: float = 0.0) -> list[float]:
    starts = [float(row) for row in range(1 + max(call.row for call in calls))]
    return row_ends(calls, starts, {"e": own_share}, are_guessed=are_guessed)


def test_a_chain_without_guesses_and_with_right_ones() -> None:
    calls = [*chain(4), *chain(2, row=1, first=4)]
    assert ends(calls, are_guessed=False) == [6.0, 4.0]
    assert ends(calls, are_guessed=True) == [3.0, 3.0], "pauses are waited for, answers are not"


def test_what_cannot_be_guessed_is_waited_for() -> None:
    first, second, third = chain(3)
    waits = TimedCall(0, (1,), frozenset(), 0.5, 1.0)
    assert ends([first, second, waits], are_guessed=True) == [3.5]
    assert ends([first, second, third], are_guessed=True) == [2.5]
    both = TimedCall(0, (0, 1), frozenset({0}), 0.0, 1.0)
    assert ends([first, TimedCall(0, (), frozenset(), 2.0, 1.0), both], are_guessed=True) == [4.0]


@pytest.mark.parametrize(("own_share", "expected_s"), [(0.0, 3.0), (1.0, 4.5), (0.5, 32 / 9)])
def test_calls_share_an_engine(own_share: float, expected_s: float) -> None:
    calls = chain(4, engine="e")
    assert ends(calls, are_guessed=False, own_share=own_share) == [6.0]
    assert ends(calls, are_guessed=True, own_share=own_share) == [pytest.approx(expected_s)]


def test_a_call_alone_is_faster_than_it_was_beside_others() -> None:
    (call,) = chain(1, engine="e", beside=3.0)
    assert ends([call], are_guessed=False, own_share=1.0) == [pytest.approx(0.5 + 1 / 3)]
