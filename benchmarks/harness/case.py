"""A case: a batch of rows, what it must come out as, and how fast it can be at best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.bounds import attainable_s, critical_path_s, physical_s
from benchmarks.harness.calibration import Calibration
from benchmarks.harness.calls import call_graph
from benchmarks.harness.oracle import Known, KnownCall, Oracle, unanswered
from benchmarks.harness.system import Batch, Results
from benchmarks.harness.workload import Inputs, Workload


class WrongResult(Exception):
    """A system's results are not the plain program's."""


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
    arrivals_s = () if workload.arrivals is None else workload.arrivals(inputs)
    for day in range(1, workload.num_warm_days + 2):
        rows = workload.rows(Inputs(**{**vars(inputs), "day": day}))
        graphs = [await call_graph(workload.workflow, row) for row in rows]
        days.append(Batch(workload, rows, graphs, tuple(days), arrivals_s, inputs))
    return days[-1]


def make_case(batch: Batch, variant: str, oracle: Oracle) -> Case:
    """Answer a batch without an engine."""
    known = oracle.run(batch.graphs, batch.arrivals_s)
    earlier = [call for day in batch.earlier for call in oracle.run(day.graphs).calls]
    return Case(batch, variant, known, unanswered(known.calls, earlier))


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
