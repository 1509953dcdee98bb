"""What speculation wins and costs, in the exact simulator.

    python -m benchmarks.speculation --programs react --open 1,2 --seeds 7 --json speculation.json

Each line compares pairs of runs with those of the same seed without speculation: the time of items
(p50 and p95) and the tokens that the engine computed, where an item is opened when another ends;
the time of items in a run in which they come by the clock, so many that as many are open on average
without speculation; and the mean time of calls of others that come beside, in a third run. Runs
that FILE has are not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import mean

from benchmarks.speculation.measure import Arrivals, Cell, Run, run
from benchmarks.speculation.programs import PROGRAMS
from benchmarks.speculation.results import Result, read, report, write
from benchmarks.speculation.systems import SYSTEMS, System
from helium_agents.optimizer.step_cost import STEP_COSTS

OTHERS_PER_S = {"h100-8b": 10.0, "cpu-small": 8.0, "cpu-medium": 4.0}
"""Short calls of others, a second."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, and print tables."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        known = read(options.json) if options.json else []
    except ValueError as error:
        parser.error(str(error))
    results: list[Result] = []
    for cell, system, seed in _runs(options):
        found = _find(known, cell, system, seed)
        if found is None:
            found = _result(cell, system, seed)
            known.append(found)
            if options.json:
                write(options.json, known)
        results.append(found)
    print(report(results))


def _runs(options: argparse.Namespace) -> Iterator[tuple[Cell, System, int]]:
    programs = {each.name: each for each in PROGRAMS}
    systems = {each.name: each for each in SYSTEMS}
    for cost in options.costs.split(","):
        for program in options.programs.split(","):
            for usual in map(float, options.usual.split(",")):
                for num_open in map(int, options.open.split(",")):
                    cell = Cell(programs[program], cost, usual, num_open)
                    for seed in range(1, options.seeds + 1):
                        for name in options.systems.split(","):
                            if name != "all branches" or programs[program].answers:
                                yield cell, systems[name], seed


def _find(known: Sequence[Result], cell: Cell, system: System, seed: int) -> Result | None:
    key = (cell.cost, cell.program.name, cell.usual, cell.num_open)
    for each in known:
        if (each.cell, each.system, each.seed) == (key, system.name, seed):
            return each
    return None


def _result(cell: Cell, system: System, seed: int) -> Result:
    off = _off(cell, seed)
    alone = off if system.name == "off" else run(cell, system, seed)
    item_s = mean(off.item_s) / cell.num_open
    by_clock = run(cell, system, seed, Arrivals(item_s))
    beside = run(cell, system, seed, Arrivals(item_s, OTHERS_PER_S[cell.cost]))
    for found in (alone, by_clock, beside):
        _check(cell, system, seed, found)
    return Result(
        cell.program.name,
        cell.cost,
        cell.usual,
        cell.num_open,
        system.name,
        seed,
        alone.p(50),
        alone.p(95),
        alone.tokens,
        by_clock.p(50),
        by_clock.p(95),
        beside.others_mean_s,
    )


@lru_cache(maxsize=1)
def _off(cell: Cell, seed: int) -> Run:
    return run(cell, SYSTEMS[0], seed)


_texts: dict[tuple[Cell, int], Sequence[str]] = {}


def _check(cell: Cell, system: System, seed: int, found: Run) -> None:
    """Raise unless all systems return the same."""
    if _texts.setdefault((cell, seed), found.texts) != found.texts:
        raise AssertionError(f"{system.name} returns other texts than others: {cell}, seed {seed}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speculation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = ",".join(each.name for each in PROGRAMS)
    parser.add_argument("--programs", default=names, metavar="NAMES", help=names)
    parser.add_argument("--costs", default="h100-8b,cpu-medium", help=", ".join(STEP_COSTS))
    parser.add_argument("--usual", default="0.9", help="how often an unknown is as usual")
    parser.add_argument("--open", default="1,2,4,8", help="items that are open at once")
    systems = ",".join(each.name for each in SYSTEMS)
    parser.add_argument("--systems", default=systems, metavar="NAMES", help=systems)
    parser.add_argument("--seeds", type=int, default=7, help="pairs of each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the runs, and go on")
    return parser


if __name__ == "__main__":
    main()
