"""Runs systems in turns on one engine, checks what they return, and makes records of it.

Every pair of runs that is compared was made in the same minute: in each round all systems run once,
in an order that changes from round to round, each on an empty prefix cache.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

import psutil

from benchmarks.harness.bounds import attainable_s, critical_path_s, physical_s
from benchmarks.harness.calibration import Calibration
from benchmarks.harness.calls import call_graph
from benchmarks.harness.engine_counts import EngineCounts
from benchmarks.harness.groups import OURS
from benchmarks.harness.oracle import Known, KnownCall, Oracle, unanswered
from benchmarks.harness.records import Record, Run, Sample
from benchmarks.harness.settings import device
from benchmarks.harness.statistics import median_interval, paired_ratio, percentile
from benchmarks.harness.system import Batch, Results, System
from benchmarks.harness.testbed import Testbed
from benchmarks.harness.workload import Inputs, Workload

_SAMPLE_S = 0.25
_LONGEST_RUN_S = 3600.0
"""A run that takes longer hangs."""
_SLOWER_IN_A_ROW = 2
_NUM_FINALISTS, _NUM_REPEATS = 3, 2


class WrongResult(Exception):
    """A system's results are not the plain program's."""


class SystemFailed(Exception):
    """A system raised an error; its cause is that error."""


class BoundBeaten(Exception):
    """A run was faster than anything can be: the calibration or the measurement is wrong."""


@dataclass(frozen=True)
class Bounds:
    """How fast a batch can be at best, in seconds.

    Args:
        physical_s: Nothing can be faster.
        attainable_s: The same with decoding at its measured price.
        solo_s: Best time of the longest chain of dependent calls.
    """

    physical_s: float
    attainable_s: float
    solo_s: float


@dataclass(frozen=True)
class Case:
    """One batch, and what it must come out as.

    Args:
        batch: The rows.
        variant: ``published`` or ``distinct``.
        known: Results and calls of the plain program.
        needed: The calls whose answers earlier days have not given.
    """

    batch: Batch
    variant: str
    known: Known
    needed: Sequence[KnownCall]

    def bounds(self, calibration: Calibration) -> Bounds:
        """What a calibrated engine needs at least, whoever asks it."""
        return Bounds(
            physical_s(self.needed, calibration),
            attainable_s(self.needed, calibration),
            critical_path_s(self.needed, calibration),
        )


async def make_batch(workload: Workload, inputs: Inputs) -> Batch:
    """The rows of a workload with their graphs, and those of its earlier days."""
    days: list[Batch] = []
    for day in range(1, workload.num_warm_days + 2):
        rows = workload.rows(Inputs(**{**vars(inputs), "day": day}))
        graphs = [await call_graph(workload.workflow, row) for row in rows]
        days.append(Batch(workload, rows, graphs, earlier=tuple(days)))
    return days[-1]


def make_case(batch: Batch, variant: str, oracle: Oracle) -> Case:
    """Answer a batch without an engine."""
    known = oracle.run(batch.graphs)
    earlier = [call for day in batch.earlier for call in oracle.run(day.graphs).calls]
    return Case(batch, variant, known, unanswered(known.calls, earlier))


@dataclass(frozen=True)
class Plan:
    """What is measured of a case.

    Args:
        systems: In the order of the table.
        num_rounds: How often each system runs.
        fewer_rounds: Systems that run less often: how often.
    """

    systems: Sequence[System]
    num_rounds: int
    fewer_rounds: Mapping[str, int] = field(default_factory=dict)

    def in_round(self, number: int) -> list[System]:
        """The systems that run in a round, in an order of its own."""
        running = [
            system
            for system in self.systems
            if number < self.fewer_rounds.get(system.name, self.num_rounds)
        ]
        random.Random(number).shuffle(running)
        return running


async def measure_case(
    case: Case, bounds: Bounds, plan: Plan, bed: Testbed, report: Callable[[str], None]
) -> list[Record]:
    """Measure all systems of a plan on a case.

    Args:
        case: The batch.
        bounds: Of it, as far as they are known.
        plan: The systems.
        bed: The engine and the server.
        report: Told what is going on, a line at a time.

    Raises:
        WrongResult: A system returned something else than the plain program.
    """
    for system in plan.systems:
        await bed.start(server=system.uses_server)
    tuned = {system.name: await _tuned(system, case, bed, report) for system in plan.systems}
    same = {name: each.same_as for name, each in tuned.items() if each.same_as in tuned}
    runs: dict[str, list[tuple[int, Run]]] = {system.name: [] for system in plan.systems}
    for number in range(plan.num_rounds):
        for system in plan.in_round(number):
            if system.name in same:
                continue
            run = await measure(tuned[system.name], case, bed)
            runs[system.name].append((number, run))
            report(
                f"{case.batch.workload.name}, round {number + 1}: {system.name} {run.seconds:.2f} s"
            )
    runs |= {name: runs[other] for name, other in same.items()}
    ours = dict(runs.get(OURS, ()))
    return [
        _record(system, tuned[system.name], dict(runs[system.name]), ours, case, bounds, bed)
        for system in plan.systems
    ]


async def _tuned(system: System, case: Case, bed: Testbed, report: Callable[[str], None]) -> System:
    """The fastest of a system's candidates, or the system itself.

    Candidates come in the order of their setting, and time falls and then rises along it; so two
    in a row that are slower than the best end the sweep. One run tells little: the best few are
    measured again, and the lowest median wins.
    """
    times: dict[System, list[float]] = {}

    async def measured_s(candidate: System) -> float:
        seconds = (await measure(candidate, case, bed)).seconds
        times.setdefault(candidate, []).append(seconds)
        report(f"{case.batch.workload.name}, sweep: {candidate.name} {seconds:.2f} s")
        return seconds

    best_s, num_slower = float("inf"), 0
    for candidate in system.candidates(case.batch):
        seconds = await measured_s(candidate)
        num_slower = 0 if seconds < best_s else num_slower + 1
        best_s = min(best_s, seconds)
        if num_slower == _SLOWER_IN_A_ROW:
            break
    finalists = sorted(times, key=lambda candidate: times[candidate])[:_NUM_FINALISTS]
    for _ in range(_NUM_REPEATS):
        for candidate in finalists:
            await measured_s(candidate)
    return min(finalists, key=lambda candidate: median(times[candidate]), default=system)


async def measure(system: System, case: Case, bed: Testbed) -> Run:
    """One run on an empty prefix cache.

    Raises:
        SystemFailed: The system raised an error.
        WrongResult: The system returned something else than the plain program.
    """
    await system.prepare(case.batch, bed)
    engine = bed.one(server=system.uses_server)
    await engine.reset_prefix_cache()
    gc.collect()
    process = psutil.Process()
    samples: list[Sample] = []
    memory = [process.memory_info().rss]

    async def watch() -> None:
        while True:
            samples.append(await engine.sample())
            memory.append(process.memory_info().rss)
            await asyncio.sleep(_SAMPLE_S)

    log = bed.begin(server=system.uses_server)
    counts_before = bed.counts(server=system.uses_server)
    watcher = asyncio.create_task(watch())
    cpu_s, start_s = time.process_time(), time.perf_counter()
    try:
        async with asyncio.timeout(_LONGEST_RUN_S):
            results = await system.run(case.batch, bed)
        seconds = time.perf_counter() - start_s
        cpu_s = time.process_time() - cpu_s
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise SystemFailed(
            f"{system.name} failed on {case.batch.workload.name}: {reason}"
        ) from error
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
    counts = bed.counts(server=system.uses_server)
    check(system.name, results, case)
    return Run(
        seconds=seconds,
        client_cpu_s=cpu_s,
        planning_s=system.planning_s,
        memory_mb=(max(memory) - memory[0]) / 1e6,
        requests=log.requests,
        samples=samples,
        counts=counts - counts_before if counts and counts_before else None,
    )


def with_bounds(records: Iterable[Record], bounds: Bounds) -> list[Record]:
    """The records of a case, with bounds of a better calibration.

    Raises:
        BoundBeaten: A run was faster than the physical bound.
    """
    for record in records:
        if min(record.times_s) < bounds.physical_s:
            raise BoundBeaten(
                f"{record.system} took {min(record.times_s):.2f} s on {record.workload} "
                f"({record.setting}, {record.variant}), below the physical bound of "
                f"{bounds.physical_s:.2f} s: the engine was calibrated while the machine was slower"
            )
    return [replace(record, **asdict(bounds)) for record in records]


def check(name: str, results: Results, case: Case) -> None:
    """Compare results with the plain program's, which are known.

    Answers are digests of their prompts, so a prompt that differs in a word, an answer that was
    changed and rows in another order all show.

    Raises:
        WrongResult: They differ; it says in which row.
    """
    expected = case.known.results
    if len(results) != len(expected):
        raise WrongResult(f"{name} returned {len(results)} results for {len(expected)} rows")
    for row, (found, wanted) in enumerate(zip(results, expected, strict=True)):
        if list(found) != wanted:
            raise WrongResult(
                f"{name} is wrong on row {row} of {case.batch.workload.name} ({case.variant}): "
                f"{_short(found)} in place of {_short(wanted)}. It asked for something else than "
                "the workflow does, changed an answer, or mixed up rows"
            )


def _short(texts: Sequence[str]) -> str:
    return repr([text[:60] for text in texts])


def _record(
    system: System,
    tuned: System,
    runs: dict[int, Run],
    ours: dict[int, Run],
    case: Case,
    bounds: Bounds,
    bed: Testbed,
) -> Record:
    times_s = [run.seconds for run in runs.values()]
    interval = median_interval(times_s)
    rounds = [number for number in runs if number in ours]
    ratio = None
    if rounds:
        ratio = paired_ratio(
            [runs[number].seconds for number in rounds],
            [ours[number].seconds for number in rounds],
        )
    middle = min(runs.values(), key=lambda run: abs(run.seconds - interval.median))
    latencies_s = [each.end_s - each.start_s for run in runs.values() for each in run.requests]

    def typical(value: Callable[[Run], float]) -> float:
        return median(value(run) for run in runs.values())

    settings = bed.settings
    return Record(
        workload=case.batch.workload.name,
        setting=settings.setting,
        variant=case.variant,
        system=system.name,
        median_s=interval.median,
        low_s=interval.low,
        high_s=interval.high,
        times_s=times_s,
        ratio=ratio.median if ratio else None,
        ratio_low=ratio.low if ratio else None,
        ratio_high=ratio.high if ratio else None,
        num_items=len(case.batch.rows),
        num_calls=case.batch.num_calls,
        num_sent=round(typical(lambda run: len(run.requests))),
        prompt_tokens=sum(len(call.prompt_token_ids) for call in case.known.calls),
        sent_tokens=round(typical(lambda run: sum(each.prompt_tokens for each in run.requests))),
        cached_tokens=round(typical(lambda run: sum(each.cached_tokens for each in run.requests))),
        output_tokens=round(typical(lambda run: sum(each.output_tokens for each in run.requests))),
        mean_running=typical(_mean_running),
        latency_p50_s=percentile(latencies_s, 50),
        latency_p95_s=percentile(latencies_s, 95),
        planning_s=typical(lambda run: run.planning_s),
        client_cpu_s=typical(lambda run: run.client_cpu_s),
        memory_mb=typical(lambda run: run.memory_mb),
        **asdict(bounds),
        note="" if tuned is system else tuned.name,
        samples=list(middle.samples),
        device=device(settings),
        model=settings.model,
        kv_tokens=settings.kv_tokens,
        scale=settings.scale,
        **_counted([run.counts for run in runs.values() if run.counts is not None]),
    )


def _counted(counts: Sequence[EngineCounts]) -> dict[str, Any]:
    """The fields of a record that tell what the engine counted; none where it did not."""
    if not counts:
        return {}
    return {
        "steps": round(median(each.steps for each in counts)),
        "mean_batch": median(each.mean_batch for each in counts),
        "scheduled_prefill_tokens": round(median(each.prefill_tokens for each in counts)),
        "preemptions": round(median(each.preemptions for each in counts)),
    }


def _mean_running(run: Run) -> float:
    counts = [sample.num_running for sample in run.samples]
    return sum(counts) / len(counts) if counts else 0.0
