"""How much of what a call leaves in the KV cache others begin with, as seen in rows."""

from __future__ import annotations

from helium_agents.optimizer.later_use import later_use
from helium_agents.optimizer.profile import BLOCK_TOKENS, DIGEST_BYTES, SeenCall, SeenRow

_INSTRUCTIONS, _OWN = (0, 2), 2


def call(inputs: tuple[int, ...], start: int, stop: int, answer: int | None = None) -> SeenCall:
    """A call whose prompt has the instructions and the row's blocks from `start` to `stop`."""
    added = () if answer is None else ((answer, answer + 1),)
    tokens = (2 + stop - start) * BLOCK_TOKENS
    return SeenCall("work", inputs, tokens, 8, (_INSTRUCTIONS, (start, stop)), added)


def seen(number: int, *calls: SeenCall) -> SeenRow:
    own = [f"{number}-{block}" for block in range(_OWN, 20)]
    names = ["instr-0", "instr-1", *own]
    return SeenRow(calls, b"".join(each.encode().rjust(DIGEST_BYTES, b".") for each in names))


def reflection(number: int, critic: int = 4) -> SeenRow:
    """A draft, a critic of other text, and a revision that goes on where the draft ended."""
    draft, verdict = call((), 2, 5, answer=5), call((0,), 8, 8 + critic, answer=15)
    return seen(number, draft, verdict, call((1,), 2, 7, answer=7))


def test_a_draft_is_of_use_and_of_a_verdict_the_instructions() -> None:
    found = later_use([reflection(number) for number in range(4)])
    assert found == {("work", 1): 2 / 6, ("work", 2): 2 / 7}


def test_what_is_of_use_is_the_most_that_it_was_in_any_row() -> None:
    rows = [reflection(number, critic=2 if number == 3 else 4) for number in range(5)]
    assert later_use(rows)["work", 1] == 2 / 4


def test_what_a_call_that_may_wait_begins_with_is_of_use() -> None:
    beside = [seen(n, call((), 2, 5), call((), 2, 4), call((), 2, 6)) for n in range(4)]
    assert later_use(beside) == {("work", 2): 5 / 6}, "of the longest the last block is its own"


def test_of_turns_that_few_rows_came_to_nothing_is_told() -> None:
    rows = [reflection(number) for number in range(3)]
    assert ("work", 1) not in later_use([*rows, seen(9, call((), 2, 5)), seen(8, call((), 2, 5))])
