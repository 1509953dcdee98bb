"""What the exact simulator says of runs that were measured, at the engine's own step cost.

Records get what their system was predicted to take; those of ours also the best schedule that a
search finds there, and the time if everything fitted into the KV cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.best_simulated import best_simulated
from benchmarks.harness.case import Case, make_batch, make_case
from benchmarks.harness.groups import OURS
from benchmarks.harness.model import SHAPES
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.records import Record
from benchmarks.harness.settings import EngineSettings
from benchmarks.harness.simulated import simulated_bed
from benchmarks.harness.system import System
from benchmarks.harness.workload import Inputs
from benchmarks.systems import systems
from benchmarks.workloads import workloads
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.step_cost import StepCost


def predicted(
    records: Sequence[Record], data: Path | None, report: Callable[[str], None]
) -> list[Record]:
    """The records with predictions, where their engine has told the cost of a step.

    Args:
        records: As they were measured.
        data: The directory whose rows were used, if one was.
        report: Told what is going on, a line at a time.

    Raises:
        ValueError: The rows come out as others than those that were measured.
    """
    found = list(records)
    for indices in _cases(records):
        of_case = [records[index] for index in indices]
        first = of_case[0]
        if first.step_cost is None or first.predicted_s is not None:
            continue
        report(f"simulating {first.workload} ({first.setting}, {first.variant})")
        simulated = run_in_virtual_time(_of_case(of_case, data))
        for index, record in zip(indices, simulated, strict=True):
            found[index] = record
    return found


def _cases(records: Sequence[Record]) -> Iterator[list[int]]:
    """The positions of records of one case."""
    cases: dict[tuple[object, ...], list[int]] = {}
    for index, r in enumerate(records):
        inputs = r.workload, r.variant, r.num_items, r.seed, r.tool_scale, r.rows_per_s
        cases.setdefault((*r.engine, r.setting, *inputs), []).append(index)
    yield from cases.values()


async def _of_case(records: Sequence[Record], data: Path | None) -> list[Record]:
    first = records[0]
    assert first.step_cost is not None
    cost = StepCost.from_dict(first.step_cost)
    settings = settings_of(first)
    oracle = Oracle(settings.shape)
    case = await _case(first, data, oracle)
    found = []
    async with simulated_bed(settings, cost, oracle) as bed:
        for record in records:
            system = _system(record, case)
            if system is not None:
                run = await bed.run(system, case)
                record = replace(record, predicted_s=run.seconds, predicted_steps=run.steps)
            if record.system == OURS:
                name, seconds = await best_simulated(case, bed)
                record = replace(record, best_simulated=name, best_simulated_s=seconds)
            found.append(record)
    async with simulated_bed(replace(settings, setting="fits"), cost, oracle) as bed:
        fits_s = (await bed.run(systems()[OURS], case)).seconds
    return [replace(each, fits_s=fits_s) if each.system == OURS else each for each in found]


def settings_of(record: Record) -> EngineSettings:
    """The engine that a record was measured on."""
    shape = SHAPES[record.model.partition(" ")[0]]
    is_gpu = record.model.endswith("bfloat16")
    return EngineSettings(record.setting, record.scale, shape, is_gpu)


async def _case(record: Record, data: Path | None, oracle: Oracle) -> Case:
    inputs = Inputs(
        record.num_items,
        data,
        is_distinct=record.variant == "distinct",
        seed=record.seed,
        tool_scale=record.tool_scale,
        rows_per_s=record.rows_per_s,
    )
    batch = await make_batch(workloads()[record.workload], inputs)
    case = make_case(batch, record.variant, oracle)
    if sum(len(call.prompt_token_ids) for call in case.known.calls) != record.prompt_tokens:
        raise ValueError(
            f"{record.workload}: these are not the rows that were measured; give the same --data"
        )
    return case


def _system(record: Record, case: Case) -> System | None:
    """What was measured, if it asks the engine in its own process: servers are not simulated."""
    system = systems()[record.system]
    if system.uses_server:
        return None
    if not record.note:
        return system
    return next(each for each in system.candidates(case.batch) if each.name == record.note)
