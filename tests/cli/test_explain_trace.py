"""`helium explain` of a trace and of a workflow's schedule."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonl import Helium, write_rows

from helium_agents.cli import explain_trace
from helium_agents.optimizer.choose_policy import NotCompared
from helium_agents.trace import TracedRun, read_trace
from helium_agents.trace.chunks import HEADER
from tests.trace.made import call, made_run

RUN = "run flow.py:answer --input rows.jsonl --output out.jsonl --trace run.trace"
PLAN = "explain flow.py:answer --input rows.jsonl --plan"


def test_analyze_shows_operators_and_losses(helium: Helium) -> None:
    helium(RUN)
    lines = helium("explain run.trace --analyze").stdout.splitlines()
    assert lines[0].startswith("run.trace: 20 rows, 20 model calls, ")
    (row,) = [line for line in lines if line.startswith("answer ")]
    assert row.split()[:3] == ["answer", "20", "20"]
    assert any(line.startswith("schedule: Adaptive") for line in lines)


def test_analyze_as_json(helium: Helium) -> None:
    helium(RUN)
    report = json.loads(helium("explain run.trace --analyze --json").stdout)
    (row,) = report["operators"]
    assert (row["path"], row["num_calls"], row["num_computed"]) == (["answer"], 20, 20)
    run = read_trace("run.trace")
    assert row["prompt_tokens"] == sum(each.prompt_tokens for each in run.calls)
    assert report["parts"] == 1 and report["is_cut"] is False


def test_rows_that_a_later_part_begins_again_are_counted(helium: Helium) -> None:
    write_rows(Path("rows.jsonl"), 20, unlucky=7)
    helium(RUN, expect=1)
    before = read_trace("run.trace")
    assert "begun again" not in helium("explain run.trace --analyze").stdout
    helium(f"{RUN} --resume", expect=1)
    after = read_trace("run.trace")
    num_again = sum(item.num_parts == 2 for item in after.items.values())
    assert 1 <= num_again <= sum(item >= 7 for item in before.items)
    first = helium("explain run.trace --analyze").stdout.splitlines()[0]
    said = f"{num_again} begun again by a later part, which asked their calls again"
    assert f" rows (1 failed; {said}), " in first
    report = json.loads(helium("explain run.trace --analyze --json").stdout)
    assert (report["parts"], report["rows_begun_again"]) == (2, num_again)


def test_losses_are_numbered(helium: Helium, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run(*(call(number, number, number + 1) for number in range(1, 9)))
    run.is_cut = True
    monkeypatch.setattr(explain_trace, "read_trace", lambda _: run)
    result = helium("explain run.trace --analyze")
    assert "1. about " in result.stdout and "What to do: " in result.stdout
    assert "the trace ends in the middle" in result.stderr


def test_a_trace_whose_run_was_killed_at_once_is_read(helium: Helium) -> None:
    helium(RUN)
    whole = Path("run.trace").read_bytes()
    Path("cut.trace").write_bytes(whole[: len(HEADER) + 20])
    result = helium("explain cut.trace --analyze")
    assert "0 rows, 0 model calls" in result.stdout
    assert "the trace ends in the middle" in result.stderr
    result = helium("simulate cut.trace", expect=1)
    assert "there is nothing to simulate" in result.stderr


def test_rows_that_failed_are_counted(helium: Helium, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run(call(1, 0, 1))
    run.items[0].error = "ValueError"
    monkeypatch.setattr(explain_trace, "read_trace", lambda _: run)
    assert "1 row (1 failed), 1 model call" in helium("explain run.trace --analyze").stdout


def test_long_work_is_told_of(helium: Helium, monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()
    run = made_run(call(1, 0, 1))
    echo = explain_trace.click.echo

    def tell(message: str, **options: Any) -> None:
        echo(message, **options)
        told.set()

    def read(_: Path) -> TracedRun:
        assert told.wait(timeout=30)
        return run

    monkeypatch.setattr(explain_trace.click, "echo", tell)
    monkeypatch.setattr(explain_trace, "read_trace", read)
    monkeypatch.setattr("helium_agents.cli.report._PATIENCE_S", 0.0)
    assert "still being read" in helium("explain run.trace --analyze").stderr


def test_the_choices_of_a_run(helium: Helium, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run(call(1, 0, 1))
    monkeypatch.setattr(explain_trace, "read_trace", lambda _: run)
    monkeypatch.setattr(explain_trace.Path, "is_file", lambda _: True)
    assert "nothing was chosen" in helium("explain run.trace --plan").stdout
    compared = [["everything open", 3.0, 1.0], ["2 rows open", 2.0, 1.4]]
    choice = {"policy": "2 rows open", "gain": 1.4, "predicted_s": 2.0, "t": 0.5}
    run.choices = [{**choice, "compared": compared}]
    lines = helium("explain run.trace --plan").stdout.splitlines()
    assert lines[0] == "after 0.5 s: 2 rows open"
    assert lines[3].split() == ["2", "rows", "open", "2.0", "s", "1.40", "chosen"]
    assert lines[4] == "2 rows open: predicted to be 1.40 times as fast as having all rows open"
    assert json.loads(helium("explain run.trace --plan --json").stdout)["choices"]
    run.choices = [{**choice, "compared": [], "why_not_compared": "rows pause"}]
    assert (
        "Nothing was compared: rows pause between their calls"
        in helium("explain run.trace --plan").stdout
    )
    assert set(explain_trace._NOT_COMPARED) == set(get_args(NotCompared))
    run.choices = [{**choice, "compared": []}]  # of an older version
    assert "Nothing was compared.\n" in helium("explain run.trace --plan").stdout


def test_the_plan_of_a_workflow(helium: Helium) -> None:
    result = helium(f"{PLAN} --kv-tokens 64 --model-cost cpu-small")
    assert "flow.py:answer on 20 rows of rows.jsonl, a KV cache of 64 tokens" in result.stdout
    assert "everything open" in result.stdout and "chosen" in result.stdout
    report = json.loads(helium(f"{PLAN} --limit 7 --kv-tokens 64 --json").stdout)
    assert report["rows"] == 7 and report["predicted_s"] > 0
    fits = helium(f"{PLAN} --kv-tokens 100000").stdout
    assert "all rows fit into the KV cache" in fits
    one = helium(f"{PLAN} --limit 1 --kv-tokens 16")
    assert "no more than one row" in one.stdout
    assert "does not fit into a KV cache of 16: an engine of that size" in one.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("explain run.trace --analyze --plan", "ask for one of them"),
        ("explain flow.py:answer --kv-tokens 9", "go with --plan"),
        ("explain run.trace", "run.trace is a trace: add --analyze or --plan"),
        ("explain run.trace --analyze --limit 2", "leave out other options"),
        (PLAN, "needs --input ROWS and --kv-tokens"),
        (f"{PLAN} --kv-tokens 64 --model-cost gpu", "no cost of that name"),
    ],
)
def test_wrong_options(helium: Helium, arguments: str, message: str) -> None:
    Path("run.trace").write_bytes(HEADER)
    expect = 1 if "gpu" in arguments else 2
    assert message in helium(arguments, expect=expect).stderr


def test_what_is_no_trace(helium: Helium) -> None:
    message = helium("explain rows.jsonl --analyze", expect=1).stderr
    assert "rows.jsonl is no trace: name a file that `helium run --trace` or a" in message
    for option in ("--analyze", "--plan"):
        message = helium(f"explain none.trace {option}", expect=1).stderr
        assert "the trace none.trace cannot be read: No such file" in message
    assert "names no workflow" in helium("explain none.trace", expect=1).stderr
