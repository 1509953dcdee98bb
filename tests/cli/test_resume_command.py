"""`helium run --resume`: what is there stays, the rest is computed, other work is refused."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonl import Helium, read_lines, write_rows

from helium_agents.batch.output import MadeOf, Output
from helium_agents.cli import execute
from helium_agents.engines.engine import Completion, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import InputError, RequestError

RUN = "run flow.py:answer --input rows.jsonl --output out.jsonl"
DRAW = RUN.replace("answer", "draw", 1)

DRAWING = """

@operator
async def draw(row: Row):
    samples = [llm(user(row.question), temperature=1, max_tokens=8) for _ in range(2)]
    return [(await sample).text for sample in samples]


@operator
async def complain(row: Row):
    await llm(user(row.question))
    return {"error": {"type": "none", "message": row.question, "item": -1}}
"""


@pytest.fixture(autouse=True)
def six_rows(folder: Path) -> None:
    """Six rows, two of them equal; and a workflow that draws."""
    with (folder / "flow.py").open("a") as file:
        file.write(DRAWING)
    rows = [{"question": f"question {index % 5}"} for index in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def fail_at(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the request of a number fail, once."""
    failing: set[int] = set()
    complete = engine.complete

    async def failing_complete(request: Request, *arguments: Any) -> Completion:
        if engine.num_requests in failing:
            failing.clear()
            raise RequestError("this request fails, once")
        return await complete(request, *arguments)

    monkeypatch.setattr(engine, "complete", failing_complete)
    return failing.add


@pytest.fixture
def fail_after_three_lines(engine: ScriptedEngine) -> None:
    """Makes the fourth row's request fail, once, when the lines of the rows before are written."""
    failing = {"question 3"}

    async def script(request: Request) -> str:
        question = request.messages[-1].content
        if question in failing:
            while len(read_lines("out.jsonl.part")) < 3:  # noqa: ASYNC110 (a file tells nobody)
                await asyncio.sleep(0.001)
            failing.clear()
            raise RequestError("this request fails, once")
        return f"reply to {question}"

    engine._script = script


def files() -> set[str]:
    """What a run leaves in the folder."""
    return {path.name for path in Path().glob("out.jsonl*")}


# --- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("options", ["", "--memo memo", "--unordered", "--unordered --memo memo"])
def test_a_run_that_stops_anywhere_goes_on(
    helium: Helium,
    engine: ScriptedEngine,
    fail_at: Callable[[int], None],
    options: str,
    number: int,
) -> None:
    fail_at(number)
    message = helium(f"{RUN} {options}", expect=1).stderr
    assert "this request fails, once" in message
    part = Path("out.jsonl.part")
    before = part.read_bytes() if part.exists() else b""
    helium(f"{RUN} {options} --resume")
    assert engine.num_requests - len(engine.aborted) == 5, "one a question"
    assert files() == {"out.jsonl"}
    after = Path("out.jsonl").read_bytes()
    assert after.startswith(before)
    helium(f"{RUN} {options} --overwrite")
    in_order = list if "--unordered" not in options else sorted
    whole = Path("out.jsonl").read_bytes()
    assert in_order(after.splitlines()) == in_order(whole.splitlines())


def test_draws_keep_their_answers(
    helium: Helium, engine: ScriptedEngine, fail_at: Callable[[int], None]
) -> None:
    fail_at(9)
    helium(f"{DRAW} --token-budget 70", expect=4)
    before = Path("out.jsonl.part").read_bytes()
    helium(f"{DRAW} --resume", expect=1)
    helium(f"{DRAW} --resume")
    assert Path("out.jsonl").read_bytes().startswith(before)
    assert engine.num_requests == 12
    texts = [text for line in read_lines("out.jsonl") for text in line]
    assert len(set(texts)) == 12, "equal rows and equal calls have draws of their own"


def test_resuming_what_was_finished_changes_nothing(helium: Helium, engine: ScriptedEngine) -> None:
    def written() -> tuple[int, int, int]:
        found = Path("out.jsonl").stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    helium(RUN)
    before = written()
    result = helium(f"{RUN} --resume")
    assert result.stderr == "out.jsonl was finished already: nothing is left to do\n"
    report = json.loads(helium(f"{RUN} --resume --json").stdout)
    assert (report["status"], report["output"]) == ("already finished", "out.jsonl")
    assert (report["rows"], report["rows_written"]) == (6, 6)
    assert written() == before
    assert (engine.num_starts, files()) == (1, {"out.jsonl"})


def test_resuming_what_never_began_begins(helium: Helium) -> None:
    helium(f"{RUN} --resume")
    assert len(read_lines("out.jsonl")) == 6


def test_resuming_after_the_last_line_was_written(
    helium: Helium, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(output: Output, made_of: MadeOf) -> None:
        raise InputError("the file does not get its name")

    with monkeypatch.context() as patch:
        patch.setattr(Output, "finish", fail)
        helium(RUN, expect=1)
    before = Path("out.jsonl.part").read_bytes()
    helium(f"{RUN} --resume")
    assert Path("out.jsonl").read_bytes() == before != b""
    assert (engine.num_starts, files()) == (1, {"out.jsonl"})


def test_report_of_a_resumed_run_counts_all_rows(
    helium: Helium, fail_at: Callable[[int], None]
) -> None:
    fail_at(3)
    helium(RUN, expect=1)
    report = json.loads(helium(f"{RUN} --resume --json").stdout)
    assert (report["rows"], report["rows_written"], report["status"]) == (6, 6, "finished")


@pytest.mark.usefixtures("fail_after_three_lines")
def test_a_limit_may_be_raised_but_not_below_what_is_there(helium: Helium) -> None:
    helium(f"{RUN} --limit 4", expect=1)
    before = Path("out.jsonl.part").read_bytes()
    message = helium(f"{RUN} --limit 2 --resume", expect=1).stderr
    assert "has a line of row 3, but there are 2 rows: resume with the --limit" in message
    assert Path("out.jsonl.part").read_bytes() == before
    helium(f"{RUN} --resume")
    assert len(read_lines("out.jsonl")) == 6


def test_collected_failures_stay_and_count(
    helium: Helium, engine: ScriptedEngine, fail_at: Callable[[int], None]
) -> None:
    fail_at(1)
    helium(f"{RUN} --on-error collect --token-budget 30", expect=4)
    assert len(read_lines("out.jsonl.part")) in range(2, 6)
    result = helium(f"{RUN} --on-error collect --resume", expect=3)
    assert "1 of 6 rows failed" in result.stderr
    assert read_lines("out.jsonl")[1]["error"]["type"] == "RequestError"


@pytest.mark.usefixtures("fail_after_three_lines")
def test_a_result_that_looks_like_a_failure_is_none(helium: Helium) -> None:
    run = RUN.replace("answer", "complain", 1)
    helium(run, expect=1)
    assert len(read_lines("out.jsonl.part")) == 3
    helium(f"{run} --resume")
    assert read_lines("out.jsonl")[0]["error"]["item"] == -1


# --- what is not resumed -------------------------------------------------------------------------


@pytest.fixture
def stopped(helium: Helium, fail_at: Callable[[int], None]) -> bytes:
    """The lines of a run that stopped."""
    fail_at(3)
    helium(RUN, expect=1)
    assert files() == {"out.jsonl.part", "out.jsonl.run"}
    return Path("out.jsonl.part").read_bytes()


def test_without_resume_nothing_is_lost(helium: Helium, stopped: bytes) -> None:
    message = helium(RUN, expect=1).stderr
    assert "out.jsonl.part holds the rows of a run that did not finish: add --resume" in message
    assert Path("out.jsonl.part").read_bytes() == stopped


@pytest.mark.parametrize(
    ("changed", "options"),
    [
        ("workflow", RUN.replace("answer", "plain", 1)),
        ("input", RUN.replace("rows.jsonl", "other.jsonl")),
        ("order of lines", f"{RUN} --unordered"),
        ("model", RUN),
    ],
)
def test_other_work_is_refused_and_what_is_there_is_kept(
    helium: Helium, engine: ScriptedEngine, stopped: bytes, changed: str, options: str
) -> None:
    write_rows(Path("other.jsonl"), 6)
    if changed == "model":
        engine._identity = "another model"
    message = helium(f"{options} --resume", expect=1).stderr
    assert re.search(rf"cannot go on: its {changed} has changed.* since it began", message)
    engine._identity = "scripted"
    assert Path("out.jsonl.part").read_bytes() == stopped
    helium(f"{RUN} --resume")
    assert Path("out.jsonl").read_bytes().startswith(stopped)


def test_a_changed_source_is_a_warning(helium: Helium, stopped: bytes, folder: Path) -> None:
    source = Path("flow.py").read_text()
    Path("flow.py").write_text(source.replace('"answer": reply.text', '"answer": "changed"'))
    del sys.modules["flow"]
    result = helium(f"{RUN} --resume")
    assert "warning: the workflow's source has changed since the run began" in result.stderr
    answers = [line["answer"] for line in read_lines("out.jsonl")]
    assert [answer == "changed" for answer in answers] == [False] * 3 + [True] * 3


def test_starting_over(helium: Helium, engine: ScriptedEngine, stopped: bytes) -> None:
    helium(f"{RUN} --overwrite")
    assert len(engine.requests) - len({request.messages for request in engine.requests}) >= 3
    assert files() == {"out.jsonl"}


def test_overwrite_with_a_model_that_is_not_there_spares_what_is(
    helium: Helium, stopped: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "VLLM", VLLM)
    helium(f"{RUN} --overwrite --model /no/such/model", expect=1)
    assert Path("out.jsonl.part").read_bytes() == stopped
    assert files() == {"out.jsonl.part", "out.jsonl.run"}


def test_overwrite_and_resume_exclude_each_other(helium: Helium) -> None:
    message = helium(f"{RUN} --overwrite --resume", expect=1).stderr
    assert "--overwrite starts over and --resume goes on: give one of them" in message


def test_lines_without_their_log_are_not_resumed(helium: Helium, stopped: bytes) -> None:
    Path("out.jsonl.run").rename("elsewhere")
    message = helium(f"{RUN} --resume", expect=1).stderr
    assert "out.jsonl.part cannot be resumed, since out.jsonl.run is gone" in message
    assert Path("out.jsonl.part").read_bytes() == stopped
    assert files() == {"out.jsonl.part"}


def test_a_line_that_is_not_ours(helium: Helium, fail_at: Callable[[int], None]) -> None:
    fail_at(3)
    helium(f"{RUN} --unordered", expect=1)
    with Path("out.jsonl.part").open("a") as file:
        file.write("garbage\n")
    message = helium(f"{RUN} --unordered --resume", expect=1).stderr
    assert "is not a line of this run: add --overwrite" in message
    assert Path("out.jsonl.part").read_text().endswith("garbage\n")


def test_a_directory_that_is_no_log_is_not_deleted(helium: Helium) -> None:
    Path("out.jsonl.run").mkdir()
    Path("out.jsonl.run", "thesis.tex").write_text("precious")
    for option in ("", " --resume", " --overwrite"):
        message = helium(f"{RUN}{option}", expect=1).stderr
        assert "out.jsonl.run is not the log of a run (it holds thesis.tex): move it" in message
        assert Path("out.jsonl.run", "thesis.tex").exists()
        Path("out.jsonl.part").unlink()


def test_a_run_that_stops_before_anything_is_worth_keeping_leaves_nothing(
    helium: Helium, fail_at: Callable[[int], None]
) -> None:
    fail_at(0)
    message = helium(f"{RUN} --limit 1", expect=1).stderr
    assert "--resume" not in message
    assert files() == set()
