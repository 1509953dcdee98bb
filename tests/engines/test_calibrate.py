"""Calibration: what a step takes is found again, and kept whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from helium_agents.engines.calibrate import cost_file, keep_cost, measure_cost, read_cost
from helium_agents.engines.cpu_cores import CORE_VARIABLES
from helium_agents.engines.engine import Capacity
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.step_cost import STEP_COSTS, Step, StepCost


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu-small", "cpu-medium", "h100-8b"])
def test_what_a_simulated_step_costs_is_found(name: str) -> None:
    cost = STEP_COSTS[name]

    async def measured() -> StepCost:
        engine = SimulatedEngine(cost, Capacity(16_384, 32, max_model_tokens=4096))
        await engine.start()
        assert engine.capacity is not None
        return await measure_cost(engine.complete, engine.capacity)

    found = run_in_virtual_time(measured())
    for step in (Step(1, 100), Step(16, 3200), Step(50, 50_000), Step(0, 0, 512, 512 * 256)):
        assert found.seconds(step) == pytest.approx(cost.seconds(step), rel=0.1)
    assert found.position_s == pytest.approx(cost.position_s, rel=0.1)
    assert found.request_s == pytest.approx(cost.request_s, rel=0.25)
    assert found.reply_s == pytest.approx(cost.reply_s, rel=0.25)


def test_a_cost_is_kept_by_what_it_depends_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cost_file("model", "settings")
    assert path != cost_file("model", "others")
    for name in CORE_VARIABLES:
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert path != cost_file("model", "settings"), "others compute"
    assert read_cost(path) is None
    keep_cost(path, STEP_COSTS["cpu-small"])
    assert read_cost(path) == STEP_COSTS["cpu-small"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path.write_text('{"step_s": 1')
    assert read_cost(path) is None, "damaged: it is measured again"
    path.write_text('{"step_s": -1}')
    assert read_cost(path) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keep_cost(tmp_path / "file" / "costs" / "x.json", STEP_COSTS["cpu-small"])
