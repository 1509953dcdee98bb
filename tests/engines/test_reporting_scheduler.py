"""What vLLM's scheduler reports of its steps, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from helium_agents.engines import reporting_scheduler
from helium_agents.engines.engine import Capacity, Request
from helium_agents.engines.hinted_scheduler import with_hints
from helium_agents.engines.reporting_scheduler import REQUEST_NUMBER, with_report
from helium_agents.engines.simulated import scheduler as simulated_scheduler
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.engines.step_report import STEPS_VARIABLE, StepReport
from helium_agents.graph.sampling import Sampling
from helium_agents.optimizer.step_cost import StepCost

COST = StepCost(0.01, 0.0005, 0.0, 0.0005, 0.0)


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Iterator[StepReport]:
    """A report that the schedulers of simulated engines write, by a clock that counts steps."""
    pytest.importorskip("vllm")
    report = StepReport()
    times = iter(range(1, 1_000_000))
    monkeypatch.setenv(STEPS_VARIABLE, report.path)
    monkeypatch.setattr(
        simulated_scheduler, "with_hints", lambda scheduler: with_report(with_hints(scheduler))
    )
    monkeypatch.setattr(reporting_scheduler, "monotonic", lambda: float(next(times)))
    yield report
    report.close()


def compute(num_requests: int) -> SimulatedEngine:
    """An engine that has answered requests of 100 tokens with 10."""
    engine = SimulatedEngine(COST, Capacity(1024, 16, max_requests=4, max_model_tokens=512))

    async def answer() -> None:
        await engine.start()
        await asyncio.gather(
            *(
                engine.complete(
                    Request(
                        f"{n}", (), [n] * 100, Sampling(max_tokens=10), hints={REQUEST_NUMBER: n}
                    )
                )
                for n in range(1, num_requests + 1)
            )
        )

    run_in_virtual_time(answer())
    return engine


def test_each_step_counts(report: StepReport) -> None:
    assert report.read() is None and report.windows(0.0) == []
    counts = compute(20).counts
    sums, windows = report.read(), report.windows(0.0)
    assert sums is not None
    assert sums.num_steps == len(windows) == counts.steps, "a step ends each second of this clock"
    assert sum(window.prefill_tokens for window in windows) == counts.prefill_tokens == 2_000
    assert sum(window.decode_tokens for window in windows) == 20 * 9, "the first comes with prompts"
    assert max(window.running for window in windows) == 4
    assert max(window.waiting for window in windows) >= 12
    most = max(window.kv_share for window in windows)
    assert 4 * 100 / 1024 < most <= 4 * 112 / 1024, "four requests hold seven blocks each"


def test_it_tells_when_requests_were_begun_and_read(report: StepReport) -> None:
    compute(6)
    times = [report.times_of(number) for number in range(1, 7)]
    found = [each for each in times if each is not None]
    assert len(found) == 6
    assert all(each.begun_s < each.read_s for each in found)
    assert min(each.begun_s for each in found[4:]) > max(each.begun_s for each in found[:4])
    assert report.times_of(7) is None
    assert report.times_of(1 + 8192) is None, "it would stand where the first is"


def test_where_nobody_listens_the_scheduler_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scheduler:
        def schedule(self) -> None:
            return None

        update_from_output = get_request_counts = schedule

    assert with_report(Scheduler) is Scheduler
    monkeypatch.setenv(STEPS_VARIABLE, "/proc/0/fd/0")
    assert with_report(Scheduler) is Scheduler
    assert with_report(object) is object
