"""Cases that failed once, made small: each is a program, and what is checked of all programs."""

from __future__ import annotations

import pytest

from tests.fuzz.check import check
from tests.fuzz.generate import RULE_NAMES
from tests.fuzz.program import (
    UNSEEDED,
    Ask,
    Await,
    Block,
    Case,
    Chain,
    Config,
    Cycle,
    Diamond,
    Make,
    Map,
    Op,
    OuterDraw,
    Pause,
    Raise,
    Stream,
    Together,
)


def asked(name: str, text: str, **options: object) -> Block:
    """Ask and await, keeping what is raised."""
    return (Make(name, Ask(text, **options)), Await((name,)))  # type: ignore[arg-type]


def unfit(name: str, seed: int, **options: object) -> Block:
    return asked(name, "q 0", draw=seed, schema="EvenScore", **options)


def rows(count: int) -> tuple[int, ...]:
    return tuple(range(count))


FAILING_INPUT: Block = (Make("a", Ask("boom 3")), Make("b", Ask("q", slots=("a",))), Await(("b",)))
SHARED_CORPUS = Make("corpus", Op((Map(rows(9), asked("a", "q", knows_row=True)),)))

PROGRAMS: dict[str, Block] = {
    "the same failing input in every row": (Map(rows(60), FAILING_INPUT, on_error="collect"),),
    "the same failing input in rows that begin one after another": (
        Map(rows(60), (Pause(0, 0.0005, by_row=True), *FAILING_INPUT), on_error="collect"),
    ),
    "a map in a Ref that every row awaits": (
        SHARED_CORPUS,
        Map(rows(12), (Await(("corpus",)),), on_error="collect"),
    ),
    "a map in a Ref that every row awaits, after the engine told its capacity": (
        *asked("first", "q"),
        SHARED_CORPUS,
        Map(rows(30), (Await(("corpus",)),), on_error="collect"),
    ),
    "attempts of equal draws under different retries": tuple(
        Together((unfit("a", seed, retries=0), unfit("b", seed, retries=3)), ticks)
        for seed in range(8)
        for ticks in ((0, 0), (0, 30), (30, 0))
    ),
    "attempts of equal draws under different validators": tuple(
        Together((unfit("a", seed), asked("b", "q 0", draw=seed, schema="Score")), ticks)
        for seed in range(8)
        for ticks in ((0, 0), (0, 30), (30, 0))
    ),
    "attempts of equal draws, one of them streamed": tuple(
        Together((unfit("a", seed), (Stream(Ask("q 0", draw=seed, schema="EvenScore")),)), ticks)
        for seed in range(8)
        for ticks in ((0, 0), (0, 30), (30, 0))
    ),
    "every attempt counts from the seed": tuple(
        step for seed in range(8) for step in unfit("a", seed, retries=5)
    ),
    "a long chain of declared calls": (Make("a", Chain("q", 600)), Await(("a",))),
    "a long chain whose first member fails": (Make("a", Chain("boom", 600)), Await(("a",))),
    "a deep diamond of declared calls": (Make("a", Diamond("q", 60)), Await(("a",))),
    **{
        f"a ring of {size} {kind} calls, {'all' if at_once else 'one'} awaited": (
            Cycle(kind, size, at_once),
        )
        for kind in ("plain", "pure", "input")
        for size in (1, 2, 3)
        for at_once in (False, True)
    },
    "an odd exception in an item": (
        Map(rows(12), (*asked("a", "q", knows_row=True), Raise("odd", knows_row=True))),
    ),
    "an odd exception in the source of the rows": (
        Map(rows(12), asked("a", "q"), source="async generator", fails_at=5, error="odd"),
    ),
    "an odd exception in a model call and in what waits for it": (
        Make("a", Ask("odd 0")),
        Make("b", Ask("q", slots=("a",))),
        Make("c", Ask("q 2")),
        Await(("b", "a")),
        Await(("c", "a", "b"), how="gather"),
    ),
    "an odd exception in a pure operator": (
        Make("a", Op((Pause(2), Raise("odd")), is_pure=True)),
        Make("b", Op((Pause(2), Raise("odd")), is_pure=True)),
        Await(("a", "b"), how="tasks"),
    ),
    "a failure that many await": (
        Make("a", Ask("vex 0")),
        Make("b", Ask("vex 0")),
        Make("c", Op((Pause(3), Raise("vex")))),
        Await(("a", "b", "c"), how="tasks"),
        Together(((Await(("a", "c"), in_handler=True),), (Await(("b", "c")),)), (0, 1)),
        Map(rows(6), (Await(("a",)),), on_error="collect"),
        Map(rows(6), (Await(("a",), catches=False),)),
        Await(("b",)),
    ),
    "draws of which none was made, in a pure operator": (
        Make(
            "a",
            Op(
                (
                    Make("b", Ask("boom 7", draw=2, schema="Digit")),
                    Make("c", Ask("q 2", slots=("b",), draw=3, schema="EvenScore")),
                    Await(("c",)),
                ),
                is_pure=True,
            ),
        ),
        Await(("a",)),
    ),
    "a draw made outside of the pure operator that awaits it": (OuterDraw("q 0"),),
    "the ways in which draws stay apart": (
        Make("a", Ask("q 0", draw=UNSEEDED)),
        Make("b", Ask("q 0", draw=UNSEEDED)),
        Make("c", Ask("q 1", slots=("a",))),
        Make("d", Ask("q 1", slots=("b",))),
        Await(("a", "b", "c", "d", "a"), how="tasks"),
        Map((1, 1, 1), asked("e", "q 2", draw=UNSEEDED)),
    ),
}


@pytest.mark.parametrize("memo", ["none", "warm"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_failed_once(name: str, memo: str) -> None:
    for has_capacity in (False, True):
        config = Config(rules=RULE_NAMES, memo=memo, has_capacity=has_capacity)
        problems = check(Case(1, PROGRAMS[name], config, is_calm=False))
        assert not problems, "\n".join(dict.fromkeys(problems))
