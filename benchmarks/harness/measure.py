"""Runs systems in turns on one engine, checks what they return, and makes records of it.

Every pair of runs that is compared was made in the same minute: in each round all systems run once,
in an order that changes from round to round, each on an empty prefix cache. A run that a crowded
machine disturbed is made again at once.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from statistics import median

import psutil

from benchmarks.harness.case import Bounds, Case, check
from benchmarks.harness.groups import OURS
from benchmarks.harness.record_of import record_of
from benchmarks.harness.records import MUCH_STOLEN, Record, Run, Sample
from benchmarks.harness.system import Batch, System
from benchmarks.harness.testbed import Testbed

_SAMPLE_S = 0.25
_LONGEST_RUN_S = 3600.0
"""A run that takes longer hangs."""
_MOST_ATTEMPTS = 3
_DISTURBED = 0.1
"""A run of which the hypervisor gave a larger share of the CPU time to others is made again."""
_SLOWER_IN_A_ROW = 2
_NUM_FINALISTS, _NUM_REPEATS = 3, 2


class SystemFailed(Exception):
    """A system raised an error; its cause is that error."""


class BoundBeaten(Exception):
    """A run was faster than anything can be: the calibration or the measurement is wrong."""


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
    systems = [system for system in plan.systems if _can_run(system, case.batch, report)]
    for system in systems:
        await bed.start(server=system.uses_server)
    tuned = {system.name: await _tuned(system, case, bed, report) for system in systems}
    same = {name: each.same_as for name, each in tuned.items() if each.same_as in tuned}
    runs: dict[str, list[tuple[int, Run]]] = {system.name: [] for system in systems}
    for number in range(plan.num_rounds):
        for system in plan.in_round(number):
            if system not in systems or system.name in same:
                continue
            run = await _undisturbed(tuned[system.name], case, bed, report, f"round {number + 1}")
            runs[system.name].append((number, run))
    runs |= {name: runs[other] for name, other in same.items()}
    ours = dict(runs.get(OURS, ()))
    return [
        record_of(system, tuned[system.name], dict(runs[system.name]), ours, case, bounds, bed)
        for system in systems
    ]


def _can_run(system: System, batch: Batch, report: Callable[[str], None]) -> bool:
    can = system.runs_tools or not (batch.has_pauses or batch.arrivals_s)
    if not can:
        report(f"{batch.workload.name}: without {system.name}, which runs no rows that wait")
    return can


async def _tuned(system: System, case: Case, bed: Testbed, report: Callable[[str], None]) -> System:
    """The fastest of a system's candidates, or the system itself.

    Candidates come in the order of their setting, and time falls and then rises along it; so two
    in a row that are slower than the best end the sweep. One run tells little: the best few are
    measured again, and the lowest median wins.
    """
    times: dict[System, list[float]] = {}

    async def measured_s(candidate: System) -> float:
        seconds = (await _undisturbed(candidate, case, bed, report, "sweep")).seconds
        times.setdefault(candidate, []).append(seconds)
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


async def _undisturbed(
    system: System, case: Case, bed: Testbed, report: Callable[[str], None], when: str
) -> Run:
    """A run from which little CPU time was stolen; of `_MOST_ATTEMPTS`, that with the least."""
    runs: list[Run] = []
    while len(runs) < _MOST_ATTEMPTS and all(run.stolen_share > _DISTURBED for run in runs):
        run = await measure(system, case, bed)
        runs.append(run)
        disturbed = f", {run.stolen_share:.0%} of the CPU time stolen"
        report(
            f"{case.batch.workload.name}, {when}: {system.name} {run.seconds:.2f} s"
            + (disturbed if run.stolen_share > MUCH_STOLEN else "")
        )
    return min(runs, key=lambda run: run.stolen_share)


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
    cpu_s, stolen_s, start_s = time.process_time(), _stolen_s(), time.perf_counter()
    try:
        async with asyncio.timeout(_LONGEST_RUN_S):
            results = await system.run(case.batch, bed)
        seconds = time.perf_counter() - start_s
        cpu_s, stolen_s = time.process_time() - cpu_s, _stolen_s() - stolen_s
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
        requests=list(log.requests),  # a system that prepares itself may yet add to the log
        samples=samples,
        counts=counts - counts_before if counts and counts_before else None,
        row_times_s=log.row_times_s(case.batch.arrivals_s, len(case.batch.rows)),
        choice=system.choice,
        stolen_share=stolen_s / (seconds * (os.cpu_count() or 1)),
    )


def _stolen_s() -> float:
    """CPU time that the hypervisor has given to others, of all cores; 0 where it does not say."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


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
