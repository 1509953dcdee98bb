"""What vLLM's scheduler reports of its steps, without a model."""

from __future__ import annotations

import asyncio

import pytest

from helium_agents.engines.engine import Request
from helium_agents.engines.hinted_scheduler import with_hints
from helium_agents.engines.simulated import scheduler as simulated_scheduler
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.engines.simulated.scheduler import Limits
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.engines.step_report import STEPS_VARIABLE, StepReport, with_report
from helium_agents.graph.sampling import Sampling
from helium_agents.optimizer.step_cost import StepCost

COST = StepCost(0.01, 0.0005, 0.0, 0.0005, 0.0)


def test_each_step_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    report = StepReport()
    assert report.read() is None
    monkeypatch.setenv(STEPS_VARIABLE, report.path)
    monkeypatch.setattr(
        simulated_scheduler, "with_hints", lambda scheduler: with_report(with_hints(scheduler))
    )
    monkeypatch.setattr("helium_agents.engines.step_report._WRITE_EACH_S", 0.0)

    async def steps() -> int:
        engine = SimulatedEngine(COST, Limits(1024, 16, max_model_tokens=512))
        await engine.start()
        requests = [Request(f"{n}", (), [n] * 100, Sampling(max_tokens=10)) for n in range(20)]
        await asyncio.gather(*map(engine.complete, requests))
        return engine.counts.steps

    num_steps = run_in_virtual_time(steps())
    sums = report.read()
    assert sums is not None
    assert sums.num_steps == num_steps
    assert sums.corrected(COST).decode_s < COST.decode_s, "without a model they take no time"
    report.close()
    report.close()
    assert report.read() is None


def test_half_of_a_report_is_none() -> None:
    report = StepReport()
    with open(report.path, "wb") as file:
        file.write(b"\x00" * 40)
    assert report.read() is None
    report.close()


def test_where_nobody_listens_the_scheduler_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scheduler:
        def update_from_output(self) -> None:
            return None

    assert with_report(Scheduler) is Scheduler
    monkeypatch.setenv(STEPS_VARIABLE, "/proc/0/fd/0")
    assert with_report(Scheduler) is Scheduler
    assert with_report(object) is object
