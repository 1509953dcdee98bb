"""`helium run --resume` on a finished output: nothing, more rows, its failures, or a refusal."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from jsonl import Helium, read_lines, write_rows

from helium_agents.cli import execute
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import RequestError

RUN = "run flow.py:answer --input rows.jsonl --output out.jsonl"
OUT = Path("out.jsonl")


@pytest.fixture(autouse=True)
def ten_rows(folder: Path) -> None:
    """Ten rows."""
    write_rows(folder / "rows.jsonl", 10)


@pytest.fixture
def ill(engine: ScriptedEngine) -> set[str]:
    """Questions that the model fails on, for as long as they are in it."""
    ill: set[str] = set()

    def script(request: Request) -> str:
        question = request.messages[-1].content
        if question in ill:
            raise RequestError("the model cannot read this")
        return f"reply to {question}"

    engine._script = script
    return ill


def files() -> set[str]:
    """What a person sees in the folder of it."""
    return {path.name for path in Path().glob("out.jsonl*")}


def change_source(old: str, new: str) -> None:
    """Edit the workflow, for the next run."""
    source = Path("flow.py").read_text()
    assert old in source
    Path("flow.py").write_text(source.replace(old, new))
    del sys.modules["flow"]


# --- other work -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (RUN.replace("answer", "plain"), "its workflow has changed (flow:answer, now flow:plain)"),
        (RUN.replace("rows.jsonl", "other.jsonl"), "its input has changed"),
        (f"{RUN} --unordered", "its order of lines has changed (that of the rows, now as finished"),
        (f"{RUN} --limit 4", "has 10 rows, more than the 4 that are asked for: raise --limit"),
    ],
)
def test_other_work_is_refused(helium: Helium, options: str, difference: str) -> None:
    write_rows(Path("other.jsonl"), 11)
    helium(RUN)
    before = OUT.read_bytes()
    for more in ("", " --dry-run", " --retry-failed"):
        assert difference in helium(f"{options} --resume{more}", expect=1).stderr
    assert (OUT.read_bytes(), files()) == (before, {"out.jsonl"})


def test_another_model_is_refused(helium: Helium, engine: ScriptedEngine) -> None:
    helium(RUN)
    engine._identity = "another"
    message = helium(f"{RUN} --resume", expect=1).stderr
    assert (
        "out.jsonl is of other work than is asked for: its model has changed (scripted" in message
    )
    assert "or give --overwrite in place of --resume to make it anew" in message


def test_what_differs_about_the_model_is_named(
    helium: Helium, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Parted(ScriptedEngine):
        def identity_parts(self) -> dict[str, str]:
            return {"dtype": self.identity()}

    monkeypatch.setattr(execute, "VLLM", lambda model, dtype, **_: Parted(identity=dtype))
    helium(f"{RUN} --dtype float32")
    message = helium(f"{RUN} --dtype float16 --resume", expect=1).stderr
    assert "its model's dtype has changed (float32, now float16)" in message


@pytest.mark.parametrize("limit", ["", " --limit 5"])
def test_another_version_of_the_workflow_is_refused(helium: Helium, limit: str) -> None:
    helium(f"{RUN} --limit 5")
    change_source('"answer": reply.text', '"reply": reply.text')
    message = helium(f"{RUN} --resume{limit}", expect=1).stderr
    assert "its workflow's source has changed" in message
    assert len(read_lines(OUT)) == 5


def test_an_output_of_which_nothing_is_known_is_refused(helium: Helium) -> None:
    OUT.write_text('{"precious": true}\n')
    message = helium(f"{RUN} --resume", expect=1).stderr
    assert (
        "nothing is known of how out.jsonl was made (there is no .out.jsonl.made_of.json" in message
    )
    helium(f"{RUN} --overwrite")
    OUT.write_text(OUT.read_text().replace("question 3", "edited"))
    message = helium(f"{RUN} --resume", expect=1).stderr
    assert "it has been changed or replaced since it was finished" in message
    assert "edited" in OUT.read_text()
    Path(".out.jsonl.made_of.json").write_text("{")
    assert ".out.jsonl.made_of.json cannot be read" in helium(f"{RUN} --resume", expect=1).stderr


def test_what_matters_not_to_the_answers_may_differ(helium: Helium) -> None:
    helium(RUN)
    Path("rows.jsonl").rename("renamed.jsonl")
    run = RUN.replace("rows.jsonl", "renamed.jsonl")
    message = helium(f"{run} --resume --memo memo --on-error collect --limit 10").stderr
    assert message == "out.jsonl was finished already: nothing is left to do\n"


# --- more rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "--unordered"])
def test_a_larger_limit_goes_on(helium: Helium, engine: ScriptedEngine, options: str) -> None:
    helium(f"{RUN} {options} --limit 4")
    before = OUT.read_bytes()
    result = helium(f"{RUN} {options} --limit 7 --resume")
    assert "answer: 7 rows -> out.jsonl" in result.stdout
    assert OUT.read_bytes().startswith(before)
    assert (len(read_lines(OUT)), engine.num_requests) == (7, 7)
    helium(f"{RUN} {options} --resume")
    assert (len(read_lines(OUT)), engine.num_requests) == (10, 10)
    assert files() == {"out.jsonl"}
    assert helium(f"{RUN} {options} --resume").stderr.endswith("nothing is left to do\n")
    whole = OUT.read_bytes()
    helium(f"{RUN} {options} --overwrite")
    assert sorted(whole.splitlines()) == sorted(OUT.read_bytes().splitlines())


@pytest.mark.parametrize("options", ["", "--unordered"])
def test_going_on_can_be_stopped_and_gone_on_with(
    helium: Helium, engine: ScriptedEngine, ill: set[str], options: str
) -> None:
    helium(f"{RUN} {options} --limit 4")
    before = OUT.read_bytes()
    ill.add("question 7")
    for _ in range(2):
        message = helium(f"{RUN} {options} --resume", expect=1).stderr
        assert "in row 8 (line 8 of rows.jsonl)" in message
        assert OUT.read_bytes() == before, "whoever finds it finds all of it"
        assert Path("out.jsonl.part").read_bytes().startswith(before)
    message = helium(f"{RUN} {options} --resume --limit 3", expect=1).stderr
    assert "has a line of row 4, but there are 3 rows: resume with the --limit" in message
    ill.clear()
    helium(f"{RUN} {options} --resume")
    assert OUT.read_bytes().startswith(before)
    lines = read_lines(OUT)
    questions = [line["value"]["question"] if options else line["question"] for line in lines]
    assert sorted(questions) == [f"question {index}" for index in range(10)]
    assert files() == {"out.jsonl"}


def test_what_a_run_goes_on_from_must_stay(helium: Helium, ill: set[str]) -> None:
    helium(f"{RUN} --limit 4")
    ill.add("question 7")
    helium(f"{RUN} --resume", expect=1)
    OUT.write_text("something else\n")
    message = helium(f"{RUN} --resume", expect=1).stderr
    assert "goes on from out.jsonl, which has changed since: put it back, or give" in message
    assert OUT.read_text() == "something else\n"


# --- failures -------------------------------------------------------------------------------------


@pytest.fixture
def two_failed(helium: Helium, ill: set[str]) -> bytes:
    """A finished output with two failures."""
    ill |= {"question 2", "question 9"}
    message = helium(f"{RUN} --on-error collect", expect=3).stderr
    assert "Run it again with --resume --retry-failed to compute only them." in message
    return OUT.read_bytes()


def num_errors() -> int:
    return sum("error" in line for line in read_lines(OUT))


def test_only_failures_are_computed_again(
    helium: Helium, engine: ScriptedEngine, ill: set[str], two_failed: bytes
) -> None:
    ill.clear()
    num_requests = engine.num_requests
    result = helium(f"{RUN} --resume --retry-failed")
    assert engine.num_requests == num_requests + 2
    assert "10 rows -> out.jsonl" in result.stdout
    assert [line["question"] for line in read_lines(OUT)] == [f"question {i}" for i in range(10)]
    kept = set(two_failed.splitlines()) & set(OUT.read_bytes().splitlines())
    assert (len(kept), files()) == (8, {"out.jsonl"})
    report = json.loads(helium(f"{RUN} --resume --retry-failed --json").stdout)
    assert report["status"] == "already finished"


def test_failures_of_an_unordered_run_are_computed_again(helium: Helium, ill: set[str]) -> None:
    ill.add("question 2")
    helium(f"{RUN} --unordered --on-error collect", expect=3)
    ill.clear()
    helium(f"{RUN} --unordered --resume --retry-failed")
    assert sorted(line["item"] for line in read_lines(OUT)) == list(range(10))
    assert num_errors() == 0


def test_a_retry_that_fails_leaves_the_output_and_goes_on(
    helium: Helium, engine: ScriptedEngine, ill: set[str], two_failed: bytes
) -> None:
    ill.remove("question 2")
    helium(f"{RUN} --resume --retry-failed", expect=1)
    assert OUT.read_bytes() == two_failed
    assert len(read_lines("out.jsonl.part")) == 9
    ill.clear()
    num_requests = engine.num_requests
    helium(f"{RUN} --resume")  # which is of the retry
    assert (num_errors(), engine.num_requests) == (0, num_requests + 1)


def test_failures_that_come_again_are_collected_again(
    helium: Helium, ill: set[str], two_failed: bytes
) -> None:
    ill.remove("question 9")
    message = helium(f"{RUN} --resume --retry-failed --on-error collect", expect=3).stderr
    assert "1 of 10 rows failed" in message
    assert "error" in read_lines(OUT)[2]


def test_a_retry_may_follow_a_correction_of_the_workflow(helium: Helium) -> None:
    write_rows(Path("rows.jsonl"), 10, unlucky=7)
    helium(f"{RUN} --on-error collect", expect=3)
    change_source("row.number == 13", "row.number == 14")
    message = helium(f"{RUN} --resume --retry-failed").stderr
    assert "warning: the workflow's source has changed since the run began" in message
    assert num_errors() == 0


def test_failures_are_not_passed_over_in_silence(helium: Helium, two_failed: bytes) -> None:
    message = helium(f"{RUN} --resume", expect=3).stderr
    assert "out.jsonl was finished already: 2 of 10 rows failed; their lines" in message
    assert "Run it again with --resume --retry-failed to compute only them." in message
    assert OUT.read_bytes() == two_failed


def test_failures_are_kept_where_more_rows_are_asked_for(helium: Helium, ill: set[str]) -> None:
    ill.add("question 2")
    helium(f"{RUN} --limit 5 --on-error collect", expect=3)
    ill.clear()
    helium(f"{RUN} --resume --on-error collect", expect=3)
    assert (len(read_lines(OUT)), num_errors()) == (10, 1)


def test_failures_of_an_unfinished_run_stay_until_it_is_finished(
    helium: Helium, ill: set[str]
) -> None:
    ill.add("question 0")
    helium(f"{RUN} --on-error collect --token-budget 60", expect=4)
    message = helium(f"{RUN} --resume --retry-failed", expect=3).stderr
    assert "1 of 10 rows failed; their lines have" in message
    ill.clear()
    helium(f"{RUN} --resume --retry-failed")
    assert num_errors() == 0


def test_retrying_is_a_way_of_resuming(helium: Helium) -> None:
    assert "give --resume too" in helium(f"{RUN} --retry-failed", expect=1).stderr


def test_draws_of_more_rows_are_new(helium: Helium, folder: Path) -> None:
    with (folder / "flow.py").open("a") as file:
        file.write(
            "@operator\nasync def draw(row: Row):\n"
            "    return (await llm(user('luck'), temperature=1, max_tokens=8)).text\n"
        )
    Path("rows.jsonl").write_text('{"question": "the same"}\n' * 4)
    run = RUN.replace("answer", "draw", 1)
    helium(f"{run} --limit 2")
    before = OUT.read_bytes()
    helium(f"{run} --resume")
    assert OUT.read_bytes().startswith(before)
    assert len(set(read_lines(OUT))) == 4
