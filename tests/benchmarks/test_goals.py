"""The goals against records whose verdicts are known, and cells that are continued."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from recorded import OURS_S, record

from benchmarks import goals as command
from benchmarks.harness import goal_cells
from benchmarks.harness.cli import make_parser, selection_of
from benchmarks.harness.goal_cells import CELLS, Cell, Wanted, measure_cell, read_cell
from benchmarks.harness.goals import Verdict, goals_table, verdicts
from benchmarks.harness.records import Record, write_records
from benchmarks.harness.runner import Selection

PAPER = goal_cells.PAPER.split(",")
FASTER = {"mapred-mmlu": 1.3, "debate": 1.55, "reflect": 1.1, "trading": 1.35}


def around(middle: float) -> tuple[float, ...]:
    return tuple(middle * factor for factor in (0.97, 0.98, 0.99, 1.0, 1.01, 1.02, 1.03))


def cell(system: str, ratios: dict[str, float], **fields: object) -> list[Record]:
    """Records of ours and another system by workload."""
    return [
        record(name, around(ratio) if name == system else (1.0,) * 7, workload, **fields)
        for workload, ratio in ratios.items()
        for name in ("ours", system)
    ]


def raw(**changed: float) -> list[Record]:
    return cell("raw", {name: FASTER.get(name, 1.0) for name in PAPER} | changed)


def state(found: Sequence[Verdict], *words: str) -> str:
    (one,) = [each for each in found if all(word in each.goal for word in words)]
    return one.state


def test_nothing_measured_is_nothing_met() -> None:
    assert {each.state for each in verdicts({}, {})} == {"not measured"}


def test_goals_of_a_ratio() -> None:
    found = verdicts({"raw": raw()}, {})
    assert state(found, "raw ÷ ours never shown below 0.98") == "met"
    assert state(found, "raw ÷ ours, debate 1.5") == "met"
    assert state(found, "raw ÷ ours, geometric mean") == "met"
    worse = verdicts({"raw": raw(debate=1.2, iterative=0.9)}, {})
    assert state(worse, "raw ÷ ours never shown below 0.98") == "not met"
    assert state(worse, "raw ÷ ours, debate 1.5") == "not met"
    assert state(worse, "raw ÷ ours, geometric mean") == "not met"


def test_some_of_the_workloads_decide_nothing_but_a_loss() -> None:
    some = raw()[:4]
    assert state(verdicts({"raw": some}, {}), "raw ÷ ours never shown below 0.98") == "not decided"
    assert state(verdicts({"raw": some}, {}), "raw ÷ ours, geometric mean") == "not decided"
    lost = [*some, *cell("raw", {"reflect": 0.8})]
    assert state(verdicts({"raw": lost}, {}), "raw ÷ ours never shown below 0.98") == "not met"


def test_langgraph_is_of_the_same_rounds() -> None:
    faster = cell("langgraph", dict.fromkeys(PAPER, 1.3))
    assert state(verdicts({"raw": faster}, {}), "LangGraph") == "met"
    assert state(verdicts({"raw": faster[:4]}, {}), "LangGraph") == "not decided"
    slower = cell("langgraph", dict.fromkeys(PAPER, 1.2))
    assert state(verdicts({"raw": slower}, {}), "LangGraph") == "not met"


def test_goals_beside_simulations() -> None:
    def ours(predicted: float, best: float) -> list[Record]:
        median_s = sorted(OURS_S)[3]
        return [
            replace(each, predicted_s=predicted * median_s, best_simulated_s=best * median_s)
            for each in raw()
        ]

    good = verdicts({"raw": ours(0.95, 0.93)}, {})
    assert state(good, "predicted ÷ measured") == "met"
    assert state(good, "best simulated") == "met"
    assert state(good, "attainable bound") == "not met"  # 8 of 10 s
    bad = verdicts({"raw": ours(1.2, 0.9)}, {})
    assert state(bad, "predicted ÷ measured") == "not met"
    assert state(bad, "best simulated") == "not met"


def test_goals_of_tools() -> None:
    rivals = {"raw": 1.5, "raw-tuned": 1.02, "attained-service": 1.4, "lease": 0.99}
    records = [
        record(name, around(ratio), "tools", row_ratio=ratio, row_ratio_low=0.9, row_ratio_high=2.0)
        for name, ratio in {"ours": 1.0, **rivals}.items()
    ]
    found = verdicts({"tools": records}, {})
    assert state(found, "raw ÷ ours, tools, makespan") == "met"
    assert state(found, "raw ÷ ours, tools, mean completion 1.6") == "not met"
    assert state(found, "best tried limit ÷ ours, tools never") == "met"
    assert state(found, "lease ÷ ours, tools, mean") == "not met"
    assert state(found, "attained-service ÷ ours, tools, mean") == "met"
    assert state(found, "raw ÷ ours, tools-large, makespan") == "not measured"


def test_goals_over_seeds() -> None:
    seeds = [{"makespan": gain, "mean": gain, "p95": gain} for gain in (1.8, 2.0, 2.4)]
    loops = {"cpu-medium-2": seeds, "cpu-medium-10": [{"makespan": 1.0, "mean": 1.0, "p95": 0.9}]}
    found = verdicts({}, loops)
    assert state(found, "cpu-medium-2 s, makespan 2") == "met"
    assert state(found, "cpu-medium-2 s, mean completion 2.4") == "not met"
    assert state(found, "tools of 10 s", "makespan") == "met"
    assert state(found, "tools of 10 s", "p95") == "not met"


def test_the_table_counts_what_is_met() -> None:
    text = goals_table({"raw": raw()}, {})
    assert "| raw ÷ ours, debate 1.5 " in text
    assert text.rstrip().endswith("not measured.")
    assert f"{sum(each.state == 'met' for each in verdicts({'raw': raw()}, {}))} met" in text


# --- cells -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_each_cell_is_a_command_line(cell: Cell) -> None:
    line = ["run", "--workload", cell.workloads, *cell.arguments.split()]
    chosen = selection_of(make_parser().parse_args(line))
    assert chosen.plan.num_rounds >= 6  # fewer have no interval
    assert "ours" in {system.name for system in chosen.plan.systems}
    assert len(chosen.settings) == len(chosen.variants) == 1


def test_only_some_cells() -> None:
    found = [(cell.name, names) for cell, names in Wanted("tools,raw/debate,raw/reflect").cells()]
    assert found == [("raw", ["debate", "reflect"]), ("tools", ["tools"])]
    assert [cell for cell, _ in Wanted().cells()] == list(CELLS)
    with pytest.raises(ValueError, match="--only raw/tools: there are raw, tools, "):
        Wanted("raw/tools")


def test_a_cell_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = CELLS[0]
    write_records(tmp_path / "raw.json", cell_records("debate"))
    asked: list[list[str]] = []

    async def run(
        selection: Selection,
        report: Callable[[str], None],
        on_records: Callable[[list[Record]], None],
    ) -> None:
        names = [workload.name for workload in selection.workloads]
        asked.append(names)
        on_records(cell_records(*names))

    monkeypatch.setattr(goal_cells, "run_selection", run)
    line = ["run", "--workload", "debate,reflect,iterative", *cell.arguments.split()]
    selection = selection_of(make_parser().parse_args(line))
    for _ in range(2):
        asyncio.run(measure_cell(tmp_path, cell, selection, print))
    assert asked == [["reflect", "iterative"]]
    measured = [each.workload for each in read_cell(tmp_path, cell) if each.system == "ours"]
    assert measured == ["debate", "reflect", "iterative"]


def cell_records(*names: str) -> list[Record]:
    return cell("raw", dict.fromkeys(names, 1.0))


def test_the_command_reports_without_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "raw.json", raw())
    (tmp_path / "tool-loops.json").write_text(
        '{"cpu-medium-2": [{"makespan": 2.5, "mean": 2.5, "p95": 2.5}]}'
    )
    monkeypatch.setattr("sys.argv", ["goals", str(tmp_path), "--report"])
    command.main()
    text = capsys.readouterr().out
    assert "2.50 (2.50 to 2.50 of 1 seeds)" in text
    assert "raw ÷ ours, debate 1.5" in text
