"""What engines measured, put together over time."""

from __future__ import annotations

import pytest

from helium_agents.diagnose.measured_load import measured_load
from helium_agents.optimizer.step_window import StepWindow
from helium_agents.trace import TracedRun
from tests.trace.made import CAPACITY, call, made_run


def measured_run() -> TracedRun:
    run = made_run(call(1, 0, 4))
    run.steps["tiny", "tiny"] = [
        StepWindow(0.0, 1.0, 2, 1, 0.5, 100, 0),
        StepWindow(1.01, 2.0, 3, 0, 0.25, 0, 99),
        StepWindow(3.0, 4.0, 1, 0, 0.125, 0, 10),
    ]
    return run


def test_a_pause_of_the_engine_is_seen_and_a_step_between_windows_is_none() -> None:
    load = measured_load(measured_run())
    assert load is not None
    assert load.times == [0, 1.01, 2, 3, 4]
    assert load.running == [2, 3, 0, 1, 0]
    assert load.waiting == [1, 0, 0, 0, 0]
    kv_tokens = CAPACITY["kv_tokens"]
    assert load.kv_tokens == [kv_tokens // 2, kv_tokens // 4, 0, kv_tokens // 8, 0]
    assert load.prefill_rate == [100, 0, 0, 0, 0]
    assert load.decode_rate == pytest.approx([0, 100, 0, 10, 0])


def test_engines_are_added_up_and_models_told_apart() -> None:
    run = measured_run()
    run.steps["tiny", "tiny (replica 2 of 2)"] = [StepWindow(0.5, 3.5, 1, 0, 0, 0, 0)]
    run.steps["other", "other"] = [StepWindow(0.0, 9.0, 7, 0, 0.5, 0, 0)]
    load = measured_load(run, "tiny")
    assert load is not None
    assert dict(zip(load.times, load.running, strict=True))[0.5] == 3
    assert load.times[-1] == 4
    every = measured_load(run)
    assert every is not None and max(every.running) == 11
    assert every.kv_tokens == [], "of the other model nobody knows what its engine holds"


def test_of_engines_that_tell_nothing_nothing_is_measured() -> None:
    assert measured_load(made_run(call(1, 0, 4))) is None


def test_of_a_long_run_not_more_is_told_than_can_be_seen() -> None:
    run = made_run(call(1, 0, 4))
    run.steps["tiny", "tiny"] = [StepWindow(n, n + 1, n % 5, 0, 0, 1, 1) for n in range(50_000)]
    load = measured_load(run)
    assert load is not None
    assert 2_000 < len(load.times) < 5_000 and load.times[-1] == 50_000
