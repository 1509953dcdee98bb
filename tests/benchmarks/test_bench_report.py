"""The report against records whose verdicts are known, and the file that it is put into."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from recorded import record, some_records

import benchmarks
from benchmarks.harness.records import read_records, write_records
from benchmarks.harness.report import (
    END,
    START,
    replace_section,
    report,
    summary,
)
from benchmarks.harness.tables import MAX_WIDTH, table
from benchmarks.harness.verdicts import sentences

RESULTS = Path(benchmarks.__file__).parent / "results"


def tables(text: str) -> list[list[list[str]]]:
    """All tables of a text, as rows of cells, without the rules."""
    found: list[list[list[str]]] = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
            assert all(re.fullmatch("-+:?", cell) for cell in rows[1])
            found.append([rows[0], *rows[2:]])
    return found


def cell(text: str, header: str, *names: str) -> str:
    """The cell below a header in the first table that has it, in the row that begins so."""
    for rows in tables(text):
        if header in rows[0]:
            for row in rows[1:]:
                if tuple(row[: len(names)]) == names:
                    return row[rows[0].index(header)]
    raise AssertionError(f"no {header} of {names}")


def test_ratios_have_their_intervals_and_a_mark_where_there_is_none() -> None:
    text = report(some_records())
    assert cell(text, "ours, s", "debate", "32") == "10.00"
    assert cell(text, "raw", "debate", "32") == "1.30 [1.28, 1.32]"
    assert cell(text, "querywise", "debate", "32") == "20.50*"
    assert cell(text, "ours-without-memo", "debate", "32") == "1.10 [1.10, 1.10]"
    assert cell(text, "raw-tuned", "trading", "4") == ""  # was not run


def test_three_pairs_have_a_range_that_is_marked() -> None:
    text = report([record("ours"), record("opwise", (1.2, 1.3, 1.25))])
    assert cell(text, "opwise", "debate", "32") == "1.25 [1.20, 1.30]*"
    assert "opwise (3 pairs)" in text


def test_each_figure_is_where_it_belongs() -> None:
    text = report(some_records())
    assert cell(text, "physical, s", "debate", "32") == "4.00"
    assert cell(text, "attainable, s", "debate", "32") == "8.00"
    by_system = {
        "calls": "192",
        "sent": "150",
        "asked": "170.0",
        "never sent": "50.0",
        "cached": "90.0",
        "to prefill": "30.0",
        "prefilled": "33.3",
        "output": "6.1",
        "time": "10.00",
        "steps": "1,234",
        "batch": "40.1",
        "preempted": "17",
        "p50": "2.12",
        "p95": "5.50",
        "planning": "0.012",
        "CPU": "1.25",
        "MB": "44",
    }
    for header, value in by_system.items():
        assert cell(text, header, "debate", "ours", "32") == value


def test_results_of_before_the_engine_counted_have_empty_cells() -> None:
    uncounted = {
        "steps": None, "mean_batch": None, "scheduled_prefill_tokens": None, "preemptions": None,
    }  # fmt: skip
    found = read_records(RESULTS / "cpu.json")
    records = [replace(record, **uncounted) for record in found if record.workload == "debate"]
    text = report(records)
    debate = ("debate", "ours", str(records[0].num_items))
    for header in ("steps", "prefilled", "preempted"):
        assert cell(text, header, *debate) == ""
    (ours,) = (record for record in records if record.system == "ours")
    assert cell(text, "batch", *debate) == f"{ours.mean_running:.1f}"  # the gauge's


def test_what_was_counted_outlives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    write_records(path, some_records())
    assert read_records(path) == some_records()


def test_bound_and_hit_rate() -> None:
    text = report([record("ours"), record("raw", (1.25,) * 7, cached_tokens=60_000)])
    by_title = dict(zip(re.findall(r"\*\*(.*)\*\*\n", text), tables(text), strict=True))
    bounds = by_title["Attainable bound ÷ time (1: cannot be faster)"]
    assert bounds[0][-2:] == ["ours", "raw"]
    assert bounds[1][-2:] == ["0.80", "0.64"]
    assert by_title["Physical bound ÷ time"][1][-2:] == ["0.40", "0.32"]
    hits = by_title["Prefix hit rate: cached ÷ sent prompt tokens, %"]
    assert hits[1][-2:] == ["75.0", "50.0"]


def test_sentences_say_where_ours_loses_wins_and_what_is_open() -> None:
    lines = sentences(some_records())
    assert lines[0] == (
        "- **Ours loses** to raw-tuned on debate x 32 (pressure, published): raw-tuned takes "
        "0.930 [0.900, 0.960] of our time."
    )
    assert sum("loses" in line for line in lines) == 1
    assert (
        "- Against raw ours is faster on 1 of 4, by 1.30x (pressure, published); on 1 of 1, by "
        "1.01x (fits, published)."
    ) in lines
    assert (
        "- Against raw-tuned ours is faster on 0 of 1, slower on 1 (pressure, published)." in lines
    )
    assert any(line.startswith("- Not decided") and "querywise (1 pair)" in line for line in lines)
    assert not any("wrong" in line for line in lines)
    assert (
        "- Ours reaches 20% (debate x 128) to 80% (trading x 4) of what is attainable "
        "(pressure, published)."
    ) in lines


def test_no_loss_is_said_too() -> None:
    lines = sentences([record("ours"), record("raw", (1.2,) * 7)])
    assert "- Ours reaches 80% (debate x 32) of what is attainable (pressure, published)." in lines
    assert lines[0] == (
        "- Ours loses none of 1 comparisons: no upper 95% limit of time ÷ ours lies below 1."
    )


def test_a_clear_loss_of_few_pairs_is_not_decided() -> None:
    lines = sentences([record("ours"), record("raw", (0.5, 0.5, 0.5))])
    assert not any("loses" in line or "faster" in line for line in lines)
    assert "raw (3 pairs)" in lines[-1]


def test_runs_of_which_the_hypervisor_took_much_are_counted() -> None:
    ours = record("ours", stolen_shares=[0.0, 0.02, 0.031, 0, 0, 0, 0])
    raw = record("raw", (1.2,) * 7, stolen_shares=[0.0, 0, 0, 0.14, 0, 0, 0])
    assert (
        "- In 2 of 14 runs the hypervisor gave more than 2% of the CPU time to others, at most 14% "
        "(raw on debate x 32, pressure)."
    ) in sentences([ours, raw])
    assert not any("hypervisor" in line for line in sentences([record("ours")]))


def test_a_beaten_bound_comes_first() -> None:
    lines = sentences([record("ours"), record("raw", (0.3,) * 7)])
    assert lines[0].startswith("- **The calibration is wrong**: 1 results lie below")
    assert "raw took 2.91 s, and the bound is 4.00 s" in lines[0]


def test_without_ours_there_are_times_but_no_ratios() -> None:
    alone = record("raw", ratio=None, ratio_low=None, ratio_high=None)
    text = report([alone])
    assert cell(text, "time", "debate", "raw", "32") == "10.00"
    assert "Time ÷ ours" not in text
    assert "\n\n\n" not in text
    assert sentences([alone]) == []


def test_conditions_are_named_once() -> None:
    text = summary(some_records())
    assert text.count("2 CPU cores") == 1
    assert "KV cache: pressure 16,384 tokens; fits 131,072 tokens." in text


def test_engines_are_kept_apart() -> None:
    small = [record("ours"), record("raw", (1.5,) * 7)]
    large = [
        record("ours", device="NVIDIA H100", model="large (8B)", kv_tokens=99_000),
        record("raw", (0.5,) * 7, device="NVIDIA H100", model="large (8B)", kv_tokens=99_000),
    ]
    text = summary([*small, *large])
    assert (
        "Machine: 2 CPU cores.\nModel: medium, scale 1.\nKV cache: pressure 16,384 tokens." in text
    )
    assert (
        "Machine: NVIDIA H100.\nModel: large (8B), scale 1.\nKV cache: pressure 99,000 tokens."
        in text
    )
    assert "### Pressure, published, 2 CPU cores, medium\n" in text
    assert "### Pressure, published, NVIDIA H100, large\n" in text
    assert (
        "- **Ours loses** to raw on debate x 32 (pressure, published, NVIDIA H100, large): raw "
        "takes 0.500 [0.500, 0.500] of our time."
    ) in text
    assert (
        "- Against raw ours is faster on 1 of 1, by 1.50x (pressure, published, 2 CPU cores, "
        "medium); on 0 of 1, slower on 1 (pressure, published, NVIDIA H100, large)."
    ) in text


def test_tables_are_narrow_and_aligned() -> None:
    systems = [f"a-system-of-number-{number}" for number in range(12)]
    text = summary([record("ours"), *(record(system, (1.1,) * 7) for system in systems)])
    for block in re.findall(r"(?m)(?:^\|.*\n)+", text):
        widths = {len(line) for line in block.splitlines()}
        assert len(widths) == 1
        assert widths.pop() <= MAX_WIDTH
    for system in systems:
        assert cell(text, system, "debate", "32") == "1.10 [1.10, 1.10]"


def test_a_table() -> None:
    assert table(["name", "x"], [["one", "1.5"], ["eleven", "11.0"]]) == (
        "| name   |    x |\n| ------ | ---: |\n| one    |  1.5 |\n| eleven | 11.0 |"
    )


def test_two_records_of_the_same_are_an_error() -> None:
    with pytest.raises(ValueError, match="two records of ours for debate x 32"):
        report([record("ours"), record("ours")])


def test_nothing_to_report() -> None:
    with pytest.raises(ValueError, match="no records"):
        report([])


# --- the file ----------------------------------------------------------------------------------


def test_only_what_is_between_the_markers_changes(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(f"head\r\n\n{START}\nold\n{END}\ntail without end".encode())
    path.chmod(0o640)
    replace_section(path, "new\n")
    assert path.read_bytes() == f"head\r\n\n{START}\n\nnew\n\n{END}\ntail without end".encode()
    assert path.stat().st_mode & 0o777 == 0o640
    once = path.read_bytes()
    replace_section(path, "new\n")
    assert path.read_bytes() == once
    assert [each.name for each in tmp_path.iterdir()] == ["README.md"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "real.md", tmp_path / "link.md"
    target.write_text(f"{START}\n{END}\n")
    link.symlink_to(target)
    replace_section(link, "new")
    assert link.is_symlink()
    assert "new" in target.read_text()


def test_a_marker_in_a_sentence_is_none(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"Put it between `{START}` and `{END}`.\n{START}\n{END}\n")
    replace_section(path, "new")
    assert path.read_text() == f"Put it between `{START}` and `{END}`.\n{START}\n\nnew\n\n{END}\n"


@pytest.mark.parametrize(
    "content", ["", f"{START}\n", f"{END}\n{START}\n", f"{START}\n{END}\n{START}\n{END}\n"]
)
def test_missing_markers_are_a_clear_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"README.md must have the line <!-- benchmarks:start -->"):
        replace_section(path, "new")
    assert path.read_text() == content
