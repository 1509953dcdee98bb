"""`python -m benchmarks.goals DIR`: measure what the goals speak of, and say which are met.

Cell by cell, without anybody, and to be continued after an interruption by the same command: what
DIR has is not measured again. Simulations come last, since they may run beside other work and
measurements may not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from benchmarks import tool_loops
from benchmarks.harness.case import WrongResult
from benchmarks.harness.cli import make_parser, selection_of
from benchmarks.harness.goal_cells import CELLS, Wanted, measure_cell, read_cell
from benchmarks.harness.goals import goals_table
from benchmarks.harness.measure import BoundBeaten, SystemFailed
from benchmarks.harness.predict import predicted
from benchmarks.harness.records import write_records

_LOOPS = "tool-loops.json"
_NUM_SEEDS = 5


def main() -> None:
    """Measure, simulate, and print the table; exits with 1 if a cell failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goals", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="of the results")
    parser.add_argument("--data", type=Path, help="directory with mmlu.jsonl and tatqa.jsonl")
    parser.add_argument("--only", metavar="CELLS", help="comma-separated; CELL or CELL/WORKLOAD")
    parser.add_argument("--list", action="store_true", help="show cells and their minutes")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--simulate", action="store_true", help="measure nothing, only simulate")
    what.add_argument("--report", action="store_true", help="neither: only the table")
    options = parser.parse_args()
    if options.list:
        for cell in CELLS:
            print(f"{cell.name:12} {cell.minutes:4} min  {cell.workloads}  {cell.arguments}")
        return
    failed: list[str] = []
    if not options.report:
        options.folder.mkdir(parents=True, exist_ok=True)
        if not options.simulate:
            failed = measure(options)
        simulate(options)
    print(table(options.folder))
    if failed:
        sys.exit(f"error: {'; '.join(failed)}")


def measure(options: argparse.Namespace) -> list[str]:
    """Measure what is wanted and not there yet; which cells failed, and why."""
    failed = []
    for cell, workloads in Wanted(options.only).cells():
        line = ["run", "--workload", ",".join(workloads), *cell.arguments.split()]
        if options.data is not None:
            line += ["--data", str(options.data)]
        selection = selection_of(make_parser().parse_args(line))
        try:
            asyncio.run(measure_cell(options.folder, cell, selection, _progress))
        except (SystemFailed, WrongResult, BoundBeaten, RuntimeError) as error:
            _progress(f"{cell.name} failed: {error}")
            failed.append(f"{cell.name}: {error}")
    return failed


def simulate(options: argparse.Namespace) -> None:
    """Predict what was measured, and simulate the tool loops, where that was not done."""
    for cell in CELLS:
        records = read_cell(options.folder, cell)
        if records:
            found = predicted(records, options.data, _progress)
            write_records(options.folder / f"{cell.name}.json", found)
    loops = read_loops(options.folder)
    for name, loop in tool_loops.GOAL_CELLS.items():
        if options.only is None and name not in loops:
            _progress(f"tool loops, {name}: simulating")
            loops[name] = tool_loops.gains(loop, _NUM_SEEDS)
            (options.folder / _LOOPS).write_text(json.dumps(loops, indent=1) + "\n")


def table(folder: Path) -> str:
    """The goals, and what a directory's results say of them."""
    return goals_table({cell.name: read_cell(folder, cell) for cell in CELLS}, read_loops(folder))


def read_loops(folder: Path) -> dict[str, list[dict[str, float]]]:
    """What was simulated of tool loops."""
    path = folder / _LOOPS
    found: dict[str, list[dict[str, float]]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _progress(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
