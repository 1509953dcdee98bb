"""What is measured to see whether the goals are met: cells, each of which can be resumed.

A cell is a line of `python -m benchmarks run` and a file of records. What a file has already is not
measured again, so an interrupted run goes on with the workload that it was at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.harness.records import Record, read_records, write_records
from benchmarks.harness.runner import Selection, run_selection

PAPER = "mapred-mmlu,mapred-tatqa,debate,reflect,iterative,parallel,trading"
_FULL = "--model medium --scale 1 --variant published --rounds 7"
_TOOLS = "--model small --variant published --rounds 7 --setting pressure"
_RIVALS = "ours,raw,raw-tuned,attained-service,lease"


@dataclass(frozen=True)
class Cell:
    """Something to measure.

    Args:
        name: Of its file, without the suffix.
        workloads: Comma-separated.
        arguments: Of `python -m benchmarks run`, but for workloads, data and output.
        minutes: About how long it takes on two quiet cores.
    """

    name: str
    workloads: str
    arguments: str
    minutes: int


CELLS = (
    Cell("raw", PAPER, f"--systems ours,raw,langgraph --setting pressure {_FULL}", 150),
    Cell("tools", "tools", f"--systems {_RIVALS} --scale 1 {_TOOLS}", 30),
    Cell("tools-large", "tools", f"--systems {_RIVALS} --scale 2 {_TOOLS}", 60),
    Cell("tools-open", "tools-open", f"--systems {_RIVALS} --scale 1 {_TOOLS}", 55),
    Cell("tuned", PAPER, f"--systems ours,raw-tuned --setting pressure {_FULL}", 150),
    Cell("fits", f"{PAPER},tools", f"--systems ours,raw --setting fits {_FULL}", 85),
)
"""In the order of what they tell; pairs are always of one cell."""


@dataclass(frozen=True)
class Wanted:
    """Which cells, and which workloads of them, in the order of the cells.

    Args:
        only: Comma-separated names, ``CELL`` or ``CELL/WORKLOAD``; `None` for all.

    Raises:
        ValueError: There is no such cell, or no such workload in it.
    """

    only: str | None = None

    def __post_init__(self) -> None:
        names = {cell.name: cell.workloads.split(",") for cell in CELLS}
        for name in self.only.split(",") if self.only else ():
            cell, _, workload = name.partition("/")
            if cell not in names or (workload and workload not in names[cell]):
                raise ValueError(f"--only {name}: there are {', '.join(names)}, or CELL/WORKLOAD")

    def cells(self) -> Iterator[tuple[Cell, list[str]]]:
        """The cells, with their workloads."""
        for cell in CELLS:
            chosen = [each for each in cell.workloads.split(",") if self._has(cell.name, each)]
            if chosen:
                yield cell, chosen

    def _has(self, cell: str, workload: str) -> bool:
        return self.only is None or bool({cell, f"{cell}/{workload}"} & {*self.only.split(",")})


def read_cell(folder: Path, cell: Cell) -> list[Record]:
    """What was measured of a cell; nothing before it was begun."""
    path = folder / f"{cell.name}.json"
    return read_records(path) if path.exists() else []


def left_to_measure(records: Sequence[Record], workloads: Sequence[str]) -> list[str]:
    """The workloads of which there is nothing yet."""
    done = {record.workload for record in records}
    return [each for each in workloads if each not in done]


async def measure_cell(
    folder: Path, cell: Cell, selection: Selection, report: Callable[[str], None]
) -> None:
    """Measure what a cell's file has not, and write it after each workload."""
    before = read_cell(folder, cell)
    left = left_to_measure(before, [workload.name for workload in selection.workloads])
    if not left:
        report(f"{cell.name}: measured already")
        return
    chosen = [workload for workload in selection.workloads if workload.name in left]

    def keep(records: list[Record]) -> None:
        write_records(folder / f"{cell.name}.json", [*before, *records])

    await run_selection(
        replace(selection, workloads=chosen), lambda line: report(f"{cell.name}: {line}"), keep
    )
