"""What a call waited for is told from Refs, times, and whose body it was made in."""

from __future__ import annotations

import pytest

from helium_agents.trace.dependencies import steps_of, waits_of
from helium_agents.trace.run import TracedRun
from tests.trace.made import call, made_run


def after(run: TracedRun) -> dict[int, set[int]]:
    return {step.call.number: set(step.after) for step in steps_of(run)}


def test_calls_one_after_another() -> None:
    run = made_run(call(1, 0.5, 1), call(2, 1, 2), call(3, 2.25, 3))
    assert after(run) == {1: set(), 2: {1}, 3: {2}}
    assert [step.pause_s for step in steps_of(run)] == [0.5, 0, 0.25]


def test_calls_side_by_side_and_one_after_them() -> None:
    run = made_run(call(1, 0, 1), call(2, 0, 3), call(3, 0, 2), call(4, 3, 4))
    assert after(run) == {1: set(), 2: set(), 3: set(), 4: {1, 2, 3}}


def test_rows_do_not_wait_for_one_another() -> None:
    run = made_run(call(1, 0, 1), call(2, 0, 1, item=1), call(3, 1, 2), call(4, 1, 2, item=1))
    assert after(run) == {1: set(), 2: set(), 3: {1}, 4: {2}}


def test_bodies_side_by_side_do_not_wait_for_one_another() -> None:
    """Two experts of two calls each, one quicker than the other, and a judge after both."""
    run = made_run(
        call(4, 0, 1, body=2), call(5, 0, 2, body=3), call(6, 1, 2, body=2),
        call(7, 2, 5, body=3), call(8, 5, 6, body=1),
        bodies=[(1, "panel", 0), (2, "expert", 1), (3, "expert", 1)],
    )  # fmt: skip
    assert after(run) == {4: set(), 5: set(), 6: {4}, 7: {5}, 8: {6, 7}}


def test_a_body_waits_for_what_came_before_it() -> None:
    run = made_run(
        call(2, 0, 1, body=1), call(4, 1.5, 2, body=3),
        bodies=[(1, "outer", 0), (3, "inner", 1)],
    )  # fmt: skip
    assert after(run) == {2: set(), 4: {2}}
    assert steps_of(run)[1].pause_s == pytest.approx(0.5)


def test_declared_inputs_count_though_the_call_was_asked_before_they_came() -> None:
    run = made_run(call(1, 0, 2), call(2, 0, 1), call(3, 0, 3, inputs=(1, 2)))
    step = steps_of(run)[2]
    assert step.declared == (1, 2) and set(step.after) == {1, 2} and step.pause_s == 0


def test_the_ref_of_an_operator_stands_for_the_calls_in_it() -> None:
    run = made_run(
        call(2, 0, 1, body=1), call(3, 1, 2, body=1), call(4, 0, 3, inputs=(1,)),
        bodies=[(1, "writer", 0)],
    )  # fmt: skip
    assert after(run)[4] == {3}


def test_what_was_remembered_takes_no_part() -> None:
    run = made_run(call(1, 0, 1), call(2, 1, 1, source="memo"), call(3, 1, 2))
    assert after(run) == {1: set(), 3: {1}}


def test_a_merged_call_is_a_call_too() -> None:
    merged = call(2, 0, 1, item=1, source="merged", leader=1)
    run = made_run(call(1, 0, 1), merged, call(3, 1, 2, item=1))
    assert after(run) == {1: set(), 2: set(), 3: {2}}


def test_a_merged_operator_stands_for_the_calls_of_its_leader() -> None:
    run = made_run(
        call(3, 0, 1, body=1), call(1, 0, 1, kind="operator", source="body"),
        call(2, 0, 1, kind="operator", source="merged", leader=1, item=1),
        call(4, 1, 2, item=1),
        bodies=[(1, "leaf", 0)],
    )  # fmt: skip
    assert after(run) == {3: set(), 4: {3}}


def test_a_shorter_answer_is_there_when_the_longer_one_is() -> None:
    cut = call(2, 0, 1, item=1, source="prefix", leader=1)
    run = made_run(call(1, 0, 1), cut, call(3, 1, 2, item=1))
    assert after(run) == {1: set(), 3: {1}}


def test_a_long_chain_takes_no_time() -> None:
    run = made_run(*(call(number, number, number + 1) for number in range(1, 3000)))
    assert after(run)[2000] == {1999}


def test_what_was_remembered_waited_for_its_declared_inputs() -> None:
    run = made_run(
        call(1, 0, 0, source="memo"),
        call(2, 0.1, 0.1, source="memo"),
        call(3, 0.2, 0.2, source="memo", inputs=(1,)),
        call(4, 0.3, 1),
        call(5, 1.1, 2, source="merged", leader=4),
    )
    assert waits_of(run) == {1: (), 2: (), 3: (1,), 4: (), 5: (4,)}
