"""The command line of the benchmarks: what it measures, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.cli import main, make_parser, selection_of
from benchmarks.harness.presets import DEFAULT
from benchmarks.harness.runner import Selection


def selection(line: str) -> Selection:
    return selection_of(make_parser().parse_args(["run", *line.split()]))


def test_the_default_table_is_small_enough_for_forty_minutes() -> None:
    chosen = selection("")
    assert [each.name for each in chosen.workloads] == list(DEFAULT.workloads)
    assert (chosen.shape.name, chosen.scale, chosen.plan.num_rounds) == ("small", 0.25, 7)
    assert chosen.settings == ("pressure",)


def test_a_named_workload_has_its_full_size_and_the_medium_model() -> None:
    chosen = selection("--workload debate --systems raw,ours")
    assert [each.name for each in chosen.workloads] == ["debate"]
    assert [each.name for each in chosen.plan.systems] == ["raw", "ours"]
    assert (chosen.shape.name, chosen.scale) == ("medium", 1.0)


def test_what_is_said_explicitly_holds() -> None:
    chosen = selection("--workload debate --model small --scale 0.5 --rounds 2 --batches 1,2,4")
    assert (chosen.shape.name, chosen.scale, chosen.plan.num_rounds) == ("small", 0.5, 2)
    assert chosen.batch_factors == (1, 2, 4)
    quick = selection("--quick --workload debate")
    assert (quick.shape.name, quick.scale, quick.plan.num_rounds) == ("small", 0.25, 1)


def test_both_settings_and_one_variant() -> None:
    chosen = selection("--setting both --variant distinct")
    assert chosen.settings == ("pressure", "fits")
    assert chosen.variants == ("distinct",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--workload debates", "there is no workload 'debates'; there are: "),
        ("--systems raw,best", "there is no system 'best'; there are: "),
        ("--batches 1,two", "--batches 1,two: write numbers, e.g. 1,2,4"),
        ("--batches 0", "--batches 0: factors must be above 0"),
        ("--scale -1", "--scale -1.0 must be above 0"),
        ("--scale 0", "--scale 0.0 must be above 0"),
        ("--rounds 0", "--rounds 0 must be above 0"),
    ],
)
def test_wrong_options_are_one_line(line: str, message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", *line.split()])
    assert str(stopped.value).startswith(f"error: {message}")
    assert "\n" not in str(stopped.value)


def test_results_that_could_not_be_written_are_noticed_before_anything_runs(
    tmp_path: Path,
) -> None:
    path = tmp_path / "missing" / "out.json"
    with pytest.raises(SystemExit, match="there is no directory"):
        main(["run", "--json", str(path)])
