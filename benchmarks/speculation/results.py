"""Results of pairs: what each system wins over one that does not speculate, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.harness.statistics import Interval, median_interval, paired_ratio
from benchmarks.harness.tables import table


@dataclass(frozen=True)
class Result:
    """One run, as it is kept.

    Args:
        program: Its name.
        cost: The name of a step's cost.
        usual: How often an unknown is as usual.
        num_open: Items that are open at once.
        system: Its name.
        seed: Runs of one seed are a pair.
        p50_s: Of the times of items.
        p95_s: Of the same.
        tokens: That the engine computed.
        clock_p50_s: Of the times of items that come by the clock.
        clock_p95_s: Of the same.
        others_s: Mean time of calls that came beside.
    """

    program: str
    cost: str
    usual: float
    num_open: int
    system: str
    seed: int
    p50_s: float
    p95_s: float
    tokens: int
    clock_p50_s: float
    clock_p95_s: float
    others_s: float

    @property
    def cell(self) -> tuple[str, str, float, int]:
        """What is run."""
        return self.cost, self.program, self.usual, self.num_open


def read(path: Path) -> list[Result]:
    """The results in a file; none where there is none.

    Raises:
        ValueError: It has something else, or results of another version.
    """
    if not path.exists():
        return []
    try:
        return [Result(**each) for each in json.loads(path.read_text("utf-8"))]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} has no results of this version: {error}; name another file"
        ) from None


def write(path: Path, results: Iterable[Result]) -> None:
    """Keep results."""
    path.write_text(json.dumps([asdict(each) for each in results], indent=0) + "\n", "utf-8")


def report(results: Sequence[Result]) -> str:
    """A table for each cost: a system ÷ without speculation, by cell.

    Each is the median of the pairs, with its 95% interval in brackets.
    """
    found = []
    for cost in dict.fromkeys(each.cost for each in results):
        rows = []
        for cell in sorted({each.cell for each in results if each.cost == cost}):
            inside = [each for each in results if each.cell == cell]
            off = {each.seed: each for each in inside if each.system == "off"}
            off_s = median_interval([each.p50_s for each in off.values()]).median
            for system in dict.fromkeys(each.system for each in inside if each.system != "off"):
                pairs = [(each, off[each.seed]) for each in inside if each.system == system]
                _, program, usual, num_open = cell
                row = [program, f"{usual:.2f}", str(num_open), f"{off_s:.2f}"]
                rows.append([*row, system, *_compared(pairs)])
        header = ("program", "usual", "open", "off p50, s", "system")
        found.append(f"{cost}\n\n{table([*header, *_COLUMNS], rows, 1)}")
    return "\n\n".join(found)


_COLUMNS = {
    "p50": "p50_s",
    "p95": "p95_s",
    "tokens": "tokens",
    "clock p50": "clock_p50_s",
    "clock p95": "clock_p95_s",
    "others": "others_s",
}


def _compared(pairs: Sequence[tuple[Result, Result]]) -> list[str]:
    ours, theirs = zip(*pairs, strict=True)
    ratios = [_ratio(ours, theirs, name) for name in _COLUMNS.values()]
    return [f"{each.median:.3f} [{each.low:.2f}, {each.high:.2f}]" for each in ratios]


def _ratio(ours: Sequence[Result], theirs: Sequence[Result], name: str) -> Interval:
    return paired_ratio(
        [getattr(each, name) for each in ours], [getattr(each, name) for each in theirs]
    )
