"""Two runs side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helium_agents.diagnose.bounds import bounds_of
from helium_agents.diagnose.compare_runs import compare_runs
from helium_agents.trace.run import TracedCall, TracedRun
from tests.trace.made import call, made_run


def asked(number: int, text: str | None, end_s: float = 1.0, **options: object) -> TracedCall:
    made = call(number, 0, end_s, body=1, item=number, **options)  # type: ignore[arg-type]
    if made.answer is None or text is None:
        return made
    messages = (("system", "Be brief."), ("user", text))
    return replace(made, answer=replace(made.answer, messages=messages))


def run_of(*calls: TracedCall) -> TracedRun:
    return made_run(*calls, bodies=[(1, "f:judge", 0)])


def test_why_calls_were_computed_again() -> None:
    before = run_of(asked(2, "Is it good?"), asked(3, "Is it bad?"), asked(4, "So?"))
    after = run_of(
        asked(2, "Is it good?", source="memo"), asked(3, "Is it bad??", 2.0), asked(4, "So?", 0.5)
    )
    changed, same = compare_runs(before, after).reasons
    assert (changed.operator, changed.number, changed.example) == ("judge", 1, 3)
    assert changed.reason.startswith("the message 1 (user) differs")
    assert [each.asked for each in changed.differences] == ["Is it bad??"]
    assert same.reason.startswith("the same was asked as before") and same.example == 4


def test_what_the_first_run_had_not_answered_is_not_computed_again() -> None:
    failed = replace(asked(2, "Why?"), error="ValueError: no")
    assert compare_runs(run_of(failed), run_of(asked(2, "Why?"), asked(3, "And?"))).reasons == []


def test_texts_may_be_missing_on_one_side() -> None:
    before, after = run_of(asked(2, None)), run_of(asked(2, "Is it?"))
    (known,) = compare_runs(before, after).reasons
    assert known.reason.startswith("the same"), "its token ids are the same"
    other = run_of(asked(2, None, prompt=[9, 9]))
    (unknown,) = compare_runs(other, after).reasons
    assert "not kept" in unknown.reason


def test_calls_that_changed_and_operators() -> None:
    before = run_of(asked(2, "a", 4.0), asked(3, "b", 1.0))
    after = run_of(asked(2, "a", 1.0), asked(3, "b", 1.0), asked(4, "c", 1.0))
    comparison = compare_runs(before, after)
    (change,) = comparison.changes
    assert (change.calls, change.seconds, change.row) == ((2, 2), (4.0, 1.0), 2)
    (operator,) = comparison.operators
    assert (operator.name, operator.calls, operator.engine_s) == ("judge", (2, 3), (5.0, 3.0))


# --- bounds --------------------------------------------------------------------------------------


def test_no_order_beats_the_bounds() -> None:
    first = call(1, 0, 4, prompt=[1] * 64, output=[2] * 10)
    run = made_run(first, call(2, 4, 9, prompt=[3] * 64, output=[4] * 10, inputs=(1,)))
    bounds = bounds_of(run, {})
    assert bounds is not None and bounds.lost_s == 0
    cost = 64 * 560e-6 + 273e-9 * 64 * 32
    assert bounds.chain_s == pytest.approx(2 * (cost + 10 * (12e-3 + 0.57e-3)))
    assert bounds.work_s == pytest.approx(2 * (cost + 10 * (12e-3 / 16 + 0.57e-3)))


def test_what_was_lost_is_a_bound_of_its_own() -> None:
    run = made_run(call(1, 0, 4, prompt=[1] * 64), call(2, 4, 9, prompt=[1] * 64))
    bounds, without = bounds_of(run, {2: 32}), bounds_of(run, {})
    assert bounds is not None and without is not None
    assert bounds.lost_s == pytest.approx(32 * 560e-6) and bounds.work_s < without.work_s


def test_without_a_cost_there_are_no_bounds() -> None:
    run = made_run(call(1, 0, 4))
    run.engines["tiny"] = replace(run.engines["tiny"], cost=None)
    assert bounds_of(run, {}) is None


def test_of_what_was_remembered_before_the_prompt_is_not_known() -> None:
    before = run_of(asked(2, "Why?", source="memo"))
    (reason,) = compare_runs(before, run_of(asked(2, "Why?"))).reasons
    assert reason.reason.startswith("it was remembered before")
