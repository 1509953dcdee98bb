"""What calls to come will begin with."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents.optimizer.coming import Coming
from helium_agents.optimizer.forecast import Forecast, ForecastCall

RULES, TEXT, ANSWER, SIDE, SIDE_ANSWER, MORE, LAST_ANSWER = range(7)
TOKENS = [100, 50, 10, 60, 10, 20, 10]


def call(question: object, prompt: tuple[int, ...], answer: int) -> ForecastCall:
    return ForecastCall((), prompt, (answer,), sum(TOKENS[p % 7] for p in prompt), 10, question)


def rows(num_rows: int) -> Forecast:
    """Each asks, asks aside, and goes on where the first answer ended; all share the rules."""
    found = []
    for row in range(num_rows):
        text, answer, side, side_answer, more, last = (7 * row + each for each in range(1, 7))
        found.append([
            call((row, 0), (RULES, text), answer),
            call((row, 1), (RULES, side), side_answer),
            call((row, 2), (RULES, text, answer, more), last),
        ])  # fmt: skip
    return Forecast(found, TOKENS * num_rows, range(num_rows))


def test_what_the_rows_own_later_calls_begin_with_is_of_use_until_they_are_sent() -> None:
    coming = Coming(rows(4))
    coming.send((0, 0))
    assert coming.used_tokens((0, 0), 150) is None, "all of it, and its answer"
    coming.send((0, 1))
    assert coming.used_tokens((0, 1), 160) == 105, "the rules, and some to spare"
    assert coming.used_tokens((0, 1), 320) == 210, "as long as it really is"
    coming.send((0, 2))
    assert coming.used_tokens((0, 0), 150) == 105
    assert coming.used_tokens((0, 2), 180) == 105


def test_what_others_have_in_common_is_of_use_as_long_as_rows_may_follow() -> None:
    coming = Coming(rows(2))
    for row in range(2):
        for index in range(3):
            coming.send((row, index))
    assert coming.used_tokens((1, 2), 180) == 105
    one = Coming(rows(1))
    for index in range(3):
        one.send((0, index))
    assert one.used_tokens((0, 2), 180) == 0


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert Coming(rows(2)).used_tokens("another", 100) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=20))
@settings(deadline=None)
def test_what_was_sent_before_counts_as_sent(sent: list[tuple[int, int]]) -> None:
    told, later = Coming(rows(4), sent), Coming(rows(4))
    for question in [*sent, *sent]:
        later.send(question)
    for row in range(4):
        for index in range(3):
            one, other = (each.used_tokens((row, index), 100) for each in (told, later))
            assert one == other
