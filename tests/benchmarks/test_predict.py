"""Predictions by the exact simulator: of the system that was measured, and of the best schedule."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from recorded import record

from benchmarks import ablation
from benchmarks.harness.best_simulated import candidates, forecast_of
from benchmarks.harness.case import Case, make_batch, make_case
from benchmarks.harness.model import SHAPES
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.predict import predicted, settings_of
from benchmarks.harness.records import Record
from benchmarks.harness.report import summary
from benchmarks.harness.settings import EngineSettings
from benchmarks.harness.simulated import simulated_bed
from benchmarks.harness.workload import Inputs
from benchmarks.systems import systems
from benchmarks.workloads import workloads
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.step_cost import STEP_COSTS

SETTINGS = EngineSettings("pressure", 0.25, SHAPES["small"])
COST = STEP_COSTS["cpu-small"]


@pytest.fixture(scope="module")
def oracle(cache_home: object) -> Oracle:
    return Oracle(SETTINGS.shape)


@pytest.fixture(scope="module")
def case(oracle: Oracle) -> Case:
    return make_case(asyncio.run(make_batch(workloads()["debate"], Inputs(8))), "published", oracle)


@pytest.fixture(scope="module")
def times(case: Case, oracle: Oracle) -> dict[str, float]:
    """Virtual seconds of debate's rows at a quarter, where two open rows are best."""
    names = ("raw", "ours", "ours-without-planner", "ours-without-park")

    async def main() -> dict[str, float]:
        async with simulated_bed(SETTINGS, COST, oracle) as bed:
            return {name: (await bed.run(systems()[name], case)).seconds for name in names}

    return run_in_virtual_time(main())


def measured(case: Case, system: str, note: str = "") -> Record:
    tokens = sum(len(call.prompt_token_ids) for call in case.known.calls)
    return record(
        system,
        model=SETTINGS.model,
        scale=0.25,
        num_items=8,
        prompt_tokens=tokens,
        kv_tokens=SETTINGS.kv_tokens,
        step_cost=COST.as_dict(),
        note=note,
    )


def test_records_are_given_what_their_systems_take_in_the_simulator(
    case: Case, times: dict[str, float]
) -> None:
    records = [
        measured(case, "ours"),
        measured(case, "raw"),
        measured(case, "raw-tuned", "raw-tuned (2 rows open)"),
        measured(case, "langgraph"),
    ]
    ours, raw, tuned, langgraph = predicted(records, None, print)
    assert raw.predicted_s == pytest.approx(times["raw"])
    assert ours.predicted_s == pytest.approx(times["ours"], rel=0.02)
    assert tuned.predicted_s is not None and tuned.predicted_s < 0.9 * times["raw"]
    assert langgraph.predicted_s is None  # it asks a server
    assert ours.best_simulated_s is not None and ours.fits_s is not None
    assert ours.best_simulated_s <= 1.001 * min(tuned.predicted_s, times["raw"])
    assert ours.fits_s < ours.best_simulated_s  # nothing is computed twice
    assert raw.best_simulated_s is None
    text = summary([ours, raw])
    assert ours.best_simulated in text and "Predicted ÷ measured" in text
    assert predicted([ours, raw], None, pytest.fail) == [ours, raw]  # they have theirs


def test_without_a_step_cost_there_is_no_prediction(case: Case) -> None:
    records = [replace(measured(case, "ours"), step_cost=None)]
    assert predicted(records, None, pytest.fail) == records
    assert "Predicted" not in summary(records)


def test_other_rows_than_those_that_were_measured_are_refused(case: Case) -> None:
    other = replace(measured(case, "ours"), prompt_tokens=1)
    with pytest.raises(ValueError, match="give the same --data"):
        predicted([other], None, print)


def test_the_engine_of_a_record() -> None:
    assert settings_of(record("ours", model=SETTINGS.model, scale=0.25)) == SETTINGS


def test_the_search_knows_every_length(case: Case) -> None:
    known = forecast_of(case)
    assert [len(row) for row in known.rows] == [6] * 8
    first, last = known.rows[0][0], known.rows[0][-1]
    assert last.inputs == (0, 1, 2)
    assert len(first.prompt) == -(-first.prompt_tokens // 32)
    shared = set(first.prompt) & set(known.rows[1][0].prompt)
    assert len(shared) > 10  # the system prompt
    names = [name for name, _ in candidates(case, SETTINGS.kv_tokens)]
    assert {"everything open", "1 rows open", "live cache fits 1 times"} <= set(names)
    assert len(names) == len(set(names))


def test_each_ablation_lacks_what_it_says(times: dict[str, float]) -> None:
    assert times["ours-without-planner"] > 1.1 * times["ours"]
    assert times["ours-without-park"] == pytest.approx(times["ours"], rel=0.02)


def test_the_ablation_names_what_pays_nowhere() -> None:
    times = {
        "debate": {"ours": 2.0, "ours-without-planner": 3.0, "ours-without-hints": 2.0},
        "tools": {"ours": 4.0, "ours-without-planner": 3.9, "ours-without-hints": 4.01},
    }
    text = ablation.report(times)
    assert "| planner |   1.50 |  0.97 |" in text
    assert "Pays nowhere here: hints." in text
    assert {"ours-without-memo", "ours-without-park"} <= set(ablation.ablations())
