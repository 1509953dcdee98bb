"""`helium run`: files in, files out, exit codes and messages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonl import Helium, read_lines, write_rows

from helium_agents.cli import execute, main
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.trace import read_trace

VLLM = execute.VLLM
RUN = "run flow.py:answer --input rows.jsonl --output out.jsonl"


def test_results_are_in_the_order_of_the_rows(helium: Helium) -> None:
    result = helium(RUN)
    lines = read_lines("out.jsonl")
    assert [line["question"] for line in lines] == [f"question {i}" for i in range(20)]
    assert "answer: 20 rows -> out.jsonl" in result.stdout
    assert "asked     20 model calls" in result.stdout
    assert "its text means nothing" not in result.stdout


def test_the_random_model_says_what_it_is(helium: Helium) -> None:
    assert "its text means nothing" in helium(f"{RUN} --model random").stdout


def test_equal_runs_give_equal_bytes(helium: Helium) -> None:
    helium(RUN)
    first = Path("out.jsonl").read_bytes()
    helium(f"{RUN} --overwrite")
    assert Path("out.jsonl").read_bytes() == first


def test_unordered_lines_say_which_row_they_are_of(helium: Helium) -> None:
    helium(f"{RUN} --unordered")
    lines = read_lines("out.jsonl")
    assert {line["item"]: line["value"]["question"] for line in lines} == {
        index: f"question {index}" for index in range(20)
    }


def test_limit(helium: Helium) -> None:
    helium(f"{RUN} --limit 3")
    assert len(read_lines("out.jsonl")) == 3


def test_text_is_written_as_it_is(helium: Helium) -> None:
    Path("rows.jsonl").write_text('{"question": "Grüße, 世界"}\n', encoding="utf-8")
    helium(RUN)
    assert "Grüße, 世界" in Path("out.jsonl").read_text(encoding="utf-8")


def test_quiet_prints_nothing(helium: Helium) -> None:
    result = helium(f"{RUN.replace(':answer', ':plain')} --quiet")
    assert (result.stdout, result.stderr) == ("", "")


def test_json_is_all_there_is_on_stdout(helium: Helium, capfd: pytest.CaptureFixture[str]) -> None:
    result = helium(f"{RUN} --json --model some/model --memo memo")
    report = json.loads(result.stdout)
    assert "the workflow prints" in result.stderr
    assert report["seconds"] > 0
    assert {name: report[name] for name in ("status", "output", "rows", "model", "calls")} == {
        "status": "finished",
        "output": "out.jsonl",
        "rows": 20,
        "model": "some/model",
        "calls": 20,
    }


# --- the memo ----------------------------------------------------------------------------------


def test_with_a_memo_nothing_is_computed_twice(helium: Helium, engine: ScriptedEngine) -> None:
    helium(f"{RUN} --memo memo")
    first = Path("out.jsonl").read_bytes()
    result = helium(f"{RUN} --memo memo --overwrite")
    assert "computed  nothing" in result.stdout
    assert "20 model calls: 20 from the memo" in result.stdout
    assert "no engine was started" in result.stdout
    assert (engine.num_starts, engine.num_requests) == (1, 20)
    assert Path("out.jsonl").read_bytes() == first


def test_refresh_computes_anew(helium: Helium, engine: ScriptedEngine) -> None:
    helium(f"{RUN} --memo memo")
    helium(f"{RUN} --memo memo --memo-mode refresh --overwrite")
    assert engine.num_requests == 40


def test_replay_only(helium: Helium, engine: ScriptedEngine) -> None:
    message = helium(f"{RUN} --memo memo --memo-mode replay-only", expect=1).stderr
    assert "there is no memo in memo" in message
    helium(f"{RUN} --memo memo --limit 5")
    replay = f"{RUN} --memo memo --memo-mode replay-only --overwrite"
    helium(f"{replay} --limit 5")
    message = helium(replay, expect=1).stderr
    assert "is not in the memo, which is replay-only" in message
    assert "5 of 20 rows are in out.jsonl.part" in message
    assert engine.num_requests == 5


def test_a_row_that_cannot_be_shown_hides_no_failure(helium: Helium) -> None:
    write_rows(Path("rows.jsonl"), 1, unlucky=0)
    flow = Path("flow.py").read_text()
    mute = "    def __repr__(self) -> str:\n        raise RuntimeError('no repr')\n"
    Path("flow.py").write_text(
        re.sub(r"(class Row\(BaseModel\):\n(?:    .*\n)+)", rf"\1\n{mute}", flow)
    )
    message = helium(RUN, expect=1).stderr
    assert "thirteen is unlucky" in message and "whose repr raised RuntimeError" in message


@pytest.mark.parametrize("mode", ["refresh", "replay-only"])
def test_a_mode_that_needs_a_memo(helium: Helium, mode: str) -> None:
    assert "needs --memo DIR" in helium(f"{RUN} --memo-mode {mode}", expect=1).stderr


# --- what goes wrong ---------------------------------------------------------------------------


def test_an_error_names_the_row_and_the_line_of_the_workflow(helium: Helium) -> None:
    write_rows(Path("rows.jsonl"), 20, unlucky=7)
    Path("rows.jsonl").write_text("\n" + Path("rows.jsonl").read_text())
    message = helium(RUN, expect=1).stderr
    *lines, advice = message.splitlines()
    assert lines[-3:] == [
        "error: ValueError: thirteen is unlucky",
        "  in row 8 (line 9 of rows.jsonl): Row(question='question 7', number=13)",
        '  at flow.py:22, in check: raise ValueError("thirteen is unlucky")',
    ]
    assert re.fullmatch(
        r"7 of 20 rows are in out.jsonl.part(, \d+ more (is|are) remembered)?\. "
        r"Run it again with --resume to go on: nothing is lost\.",
        advice,
    )
    assert len(read_lines("out.jsonl.part")) == 7
    assert not Path("out.jsonl").exists()


SLOW_TO_FAIL = """
import asyncio
from helium_agents import llm, user

async def go(row):
    await llm(user(row["question"]), max_tokens=8)
    if row["question"] == "question 0":
        await asyncio.sleep(0.5)
        raise {error}
"""


def test_rows_that_wait_for_an_earlier_one_are_not_lost(
    helium: Helium, engine: ScriptedEngine
) -> None:
    Path("slow.py").write_text(SLOW_TO_FAIL.format(error="ValueError('at last')"))
    run = "run slow.py:go --input rows.jsonl --output out.jsonl"
    message = helium(run, expect=1).stderr
    assert re.search(r"\d of 20 rows are remembered\. Run it again with --resume to go on", message)
    message = helium(f"{run} --overwrite --memo memo --memo-mode off", expect=1).stderr
    assert "remembered" not in message
    num_requests = engine.num_requests
    helium(f"{run} --memo memo --overwrite --on-error collect", expect=3)
    helium(f"{run} --memo memo --overwrite --on-error collect", expect=3)
    assert engine.num_requests == num_requests + 20


def test_the_first_error_of_a_task_group_is_shown(helium: Helium) -> None:
    Path("grouped.py").write_text(
        "import asyncio\n"
        "async def fail():\n"
        "    raise ValueError('inside')\n"
        "async def go(row):\n"
        "    async with asyncio.TaskGroup() as group:\n"
        "        group.create_task(fail())\n"
    )
    message = helium("run grouped.py:go --input rows.jsonl --output out.jsonl", expect=1).stderr
    assert "; the first: ValueError: inside" in message
    assert "at grouped.py:3, in fail" in message


def test_debug_shows_the_traceback(helium: Helium) -> None:
    write_rows(Path("rows.jsonl"), 2, unlucky=1)
    assert "Traceback" not in helium(RUN, expect=1).stderr
    message = helium(f"{RUN} --overwrite --debug", expect=1).stderr
    assert "Traceback" in message
    assert "in check" in message
    assert "Traceback" in helium("run none.py:x --input a --output b --debug", expect=1).stderr


def test_collected_errors_are_lines(helium: Helium) -> None:
    write_rows(Path("rows.jsonl"), 20, unlucky=7)
    result = helium(f"{RUN} --on-error collect", expect=3)
    lines = read_lines("out.jsonl")
    assert lines[7] == {
        "error": {"type": "ValueError", "message": "thirteen is unlucky", "item": 7}
    }
    assert [index for index, line in enumerate(lines) if "error" in line] == [7]
    assert "1 of 20 rows failed" in result.stderr
    assert "The first is row 8 (line 8 of rows.jsonl): ValueError: thirteen" in result.stderr
    assert "flow.py:22, in check" in result.stderr


def test_collected_errors_of_an_unordered_run(helium: Helium) -> None:
    write_rows(Path("rows.jsonl"), 20, unlucky=7)
    helium(f"{RUN} --on-error collect --unordered", expect=3)
    (failed,) = (line for line in read_lines("out.jsonl") if "error" in line)
    assert failed["item"] == failed["error"]["item"] == 7


def test_a_result_without_json_form_is_an_error_of_its_row(helium: Helium) -> None:
    run = RUN.replace(":answer", ":not_a_number")
    message = helium(run, expect=1).stderr
    assert "not_a_number returned a value of type float that cannot be written as JSON" in message
    helium(f"{run} --on-error collect", expect=3)
    assert read_lines("out.jsonl")[0]["error"]["type"] == "InputError"


def test_token_budget(helium: Helium, engine: ScriptedEngine) -> None:
    result = helium(f"{RUN} --token-budget 100 --memo memo", expect=4)
    num_rows = len(read_lines("out.jsonl.part"))
    assert 0 < num_rows < 20
    assert "stopped by the token budget" in result.stderr
    assert f"{num_rows} of 20 rows are in out.jsonl.part. Run it again with" in result.stderr
    num_computed = engine.num_requests
    helium(f"{RUN} --memo memo --overwrite")
    assert engine.num_requests == 20 > num_computed
    assert not Path("out.jsonl.part").exists()


def test_max_open(helium: Helium, engine: ScriptedEngine) -> None:
    helium(f"{RUN} --max-open 1")
    assert engine.most_open == 1
    helium(f"{RUN} --overwrite")
    assert engine.most_open > 1
    assert "--max-open" in helium(f"{RUN} --max-open 0", expect=2).stderr


def test_json_of_a_run_that_did_not_finish(helium: Helium) -> None:
    report = json.loads(helium(f"{RUN} --token-budget 100 --json", expect=4).stdout)
    assert report["status"] == "over budget"
    assert report["output"] == "out.jsonl.part"
    assert report["rows_written"] == len(read_lines("out.jsonl.part"))
    assert report["message"].startswith("stopped by the token budget")


def test_an_existing_output_is_kept(helium: Helium, engine: ScriptedEngine) -> None:
    Path("out.jsonl").write_text("precious\n")
    assert "add --overwrite" in helium(RUN, expect=1).stderr
    helium(f"{RUN} --overwrite --token-budget 1", expect=4)
    assert Path("out.jsonl").read_text() == "precious\n"
    assert not Path("out.jsonl.part").exists()


def test_input_and_output_must_differ(helium: Helium) -> None:
    message = helium(RUN.replace("out.jsonl", "rows.jsonl") + " --overwrite", expect=1).stderr
    assert "--input and --output are the same file" in message


def test_a_wrong_row_is_found_before_the_engine_starts(
    helium: Helium, engine: ScriptedEngine
) -> None:
    with Path("rows.jsonl").open("a") as file:
        file.write('{"question": 3}\n')
    assert "rows.jsonl:21 does not fit `row: Row`" in helium(RUN, expect=1).stderr
    assert engine.num_starts == 0
    assert not Path("out.jsonl.part").exists()


def test_usage(helium: Helium) -> None:
    assert "Missing option '--input'" in helium("run flow.py:answer", expect=2).stderr
    assert "0 is not in the range" in helium(f"{RUN} --limit 0", expect=2).stderr
    assert "No such command" in helium("rnu", expect=2).stderr


# --- --dry-run ---------------------------------------------------------------------------------


def test_dry_run_computes_and_writes_nothing(helium: Helium, engine: ScriptedEngine) -> None:
    files = set(Path().iterdir())
    result = helium(f"{RUN} --memo memo --dry-run")
    assert engine.num_starts == 0
    assert {path for path in Path().iterdir() if path.name != "__pycache__"} == files
    for text in (
        "rows.jsonl: 20 rows, each fits `row: Row`",
        "memo will be made",
        "1, 1, 1 by the first 3 rows",
        "3 in all, 3 of them distinct",
        "about 20 for all rows",
    ):
        assert text in result.stdout


def test_dry_run_counts_equal_calls_once_and_the_memo(helium: Helium) -> None:
    helium(f"{RUN} --memo memo --limit 4")
    Path("rows.jsonl").write_text('{"question": "a"}\n' * 3)
    run = f"{RUN} --overwrite --memo memo --dry-run"
    report = json.loads(helium(f"{run} --json").stdout)
    assert report["memo_entries"] == 4
    assert (report["rows"], report["calls_by_row"]) == (3, [1, 1, 1])
    assert (report["calls"], report["distinct_calls"]) == (3, 1)


def test_dry_run_finds_what_a_run_would_fail_on(helium: Helium) -> None:
    Path("empty_model").mkdir()
    Path("broken_model").mkdir()
    Path("broken_model/config.json").write_text('{"model_type": ')
    for options, message in (
        ("--model /no/such/model", "there is no model directory /no/such/model"),
        ("--model ./empty_model", "it has no config.json"),
        ("--model ./broken_model", "broken_model/config.json is not valid JSON (Expecting"),
        ("--memo nowhere --memo-mode replay-only", "there is no memo in nowhere"),
    ):
        assert message in helium(f"{RUN} --dry-run {options}", expect=1).stderr
    Path("out.jsonl").touch()
    assert "out.jsonl exists" in helium(f"{RUN} --dry-run", expect=1).stderr


def test_dry_run_warns_of_rows_that_fail_on_placeholders(helium: Helium) -> None:
    write_rows(Path("rows.jsonl"), 20, unlucky=1)
    message = helium(f"{RUN} --dry-run").stderr
    assert "warning: row 2 failed on placeholder answers, which may be to blame" in message
    assert "flow.py:22" in message


@pytest.mark.parametrize("command", [RUN, f"{RUN} --dry-run"])
def test_a_dtype_that_is_none_is_one_sentence(
    folder: Path, command: str, helium: Helium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "VLLM", VLLM)
    message = helium(f"{command} --dtype flot16", expect=1).stderr
    assert message == (
        "error: dtype 'flot16' is none of auto, float16, bfloat16, float32, half, float: did you "
        "mean float16?\n"
    )
    assert not Path("out.jsonl.part").exists()


@pytest.mark.parametrize("options", ["", " --json", " --quiet"])
def test_dry_run_of_which_every_row_failed_is_a_failure(helium: Helium, options: str) -> None:
    write_rows(Path("rows.jsonl"), 1, unlucky=0)
    result = helium(f"{RUN} --dry-run{options}", expect=1)
    assert "error: every row that was traced failed" in result.stderr
    assert "row 1 failed on placeholder answers" in result.stderr
    if options == " --json":
        assert list(json.loads(result.stdout)["failed_rows"]) == ["0"], "indices for programs"


def test_engine_is_told_what_the_command_line_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def engine(model: str, **options: object) -> ScriptedEngine:
        asked.update(options, model=model)
        return ScriptedEngine()

    monkeypatch.setattr(execute, "VLLM", engine)
    options = "--model dir --dtype float32 --max-model-tokens 512 --kv-tokens 4096"
    result = CliRunner().invoke(main, f"{RUN} {options}".split())
    assert result.exit_code == 0, result.output
    assert asked == {
        "model": "dir",
        "dtype": "float32",
        "max_model_tokens": 512,
        "kv_tokens": 4096,
    }


ENDS_IT = """
import sys
from helium_agents import llm, operator, user

class Odd(BaseException):
    pass

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

@operator
async def answer(row: dict):
    await llm(user(row["question"]), max_tokens=8)
    if row["question"] == "question 3":
        {statement}
    return row
"""


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("sys.exit()", "the workflow ended the program (sys.exit(None))"),
        ("sys.exit(3)", "the workflow ended the program (sys.exit(3))"),
        ("raise Odd('skipped')", "Odd: skipped"),
        ("raise Mute", "Mute: <no text, str() raises>"),
    ],
)
def test_whatever_ends_a_run_is_said(helium: Helium, statement: str, message: str) -> None:
    Path("ends.py").write_text(ENDS_IT.format(statement=statement))
    result = helium("run ends.py:answer --input rows.jsonl --output out.jsonl", expect=1)
    assert message in result.stderr
    assert not Path("out.jsonl").exists()


def test_an_error_whose_text_raises_is_collected(helium: Helium) -> None:
    Path("ends.py").write_text(ENDS_IT.format(statement="raise Mute"))
    run = "run ends.py:answer --input rows.jsonl --output out.jsonl --on-error collect"
    result = helium(run, expect=3)
    assert "1 of 20 rows failed" in result.stderr
    (failed,) = (line for line in read_lines("out.jsonl") if "error" in line)
    assert failed["error"] == {"type": "Mute", "message": "<no text, str() raises>", "item": 3}


def test_an_empty_path_is_refused(helium: Helium) -> None:
    helium(f"{RUN} --memo=", expect=2)
    assert not Path("data.mdb").exists()


# --- traces --------------------------------------------------------------------------------------


def test_a_trace_is_kept(helium: Helium) -> None:
    helium(f"{RUN} --trace run.trace")
    run = read_trace("run.trace")
    assert len(run.items) == len(run.computed) == 20
    assert all(call.answer is not None and call.answer.texts for call in run.computed)


def test_a_trace_without_texts(helium: Helium) -> None:
    helium(f"{RUN} --trace run.trace --trace-content off")
    assert b"question" not in Path("run.trace").read_bytes()
    assert {call.answer and call.answer.texts for call in read_trace("run.trace").computed} == {
        None
    }
    assert "add --trace FILE" in helium(f"{RUN} --trace-content off", expect=2).stderr


def test_a_trace_is_no_other_file(helium: Helium) -> None:
    rows = Path("rows.jsonl").read_bytes()
    for options in ("--trace rows.jsonl", "--trace rows.jsonl --overwrite"):
        assert "rows.jsonl" in helium(f"{RUN} {options}", expect=1).stderr
    assert Path("rows.jsonl").read_bytes() == rows
    assert "--trace" in helium(f"{RUN} --trace out.jsonl", expect=1).stderr


def test_a_finished_output_is_not_traced(helium: Helium) -> None:
    helium(RUN)
    result = helium(f"{RUN} --resume --trace run.trace")
    assert "nothing is left to do, and no trace is written" in result.stderr
    assert not Path("run.trace").exists()


def test_a_trace_goes_with_its_output(helium: Helium) -> None:
    helium(f"{RUN} --limit 2 --trace run.trace")
    result = helium(f"{RUN.replace('out.', 'other.')} --trace run.trace", expect=1)
    assert "run.trace is there already" in result.stderr and "--overwrite" in result.stderr
    assert not Path("other.jsonl").exists()
    helium(f"{RUN} --limit 3 --resume --trace run.trace")
    run = read_trace("run.trace")
    assert len(run.parts) == 2 and len(run.items) == len(run.computed) == 3
    assert [item.index for item in run.items.values()] == [0, 1, 2]
    helium(f"{RUN} --overwrite --trace run.trace")
    assert len(read_trace("run.trace").parts) == 1
