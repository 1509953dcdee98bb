"""The commands beside `run`, and what the program as a whole does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonl import Helium, read_lines, write_rows

from helium_agents.cli import execute
from helium_agents.engines.engine import Completion
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.memo.open import open_store

# --- explain -----------------------------------------------------------------------------------


def test_explain_makes_up_a_row(helium: Helium, engine: ScriptedEngine) -> None:
    text = helium("explain flow.py:answer").stdout
    assert "on 1 row made up" in text
    assert "Answers are placeholders" in text
    assert text.count("#1 answer") == 1, "one tree"
    assert re.search(r'  #2 llm max_tokens=8 key=\w{8} "\w{8}"\n', text)
    assert engine.num_starts == 0


def test_explain_shows_what_the_rules_make_of_equal_calls(helium: Helium) -> None:
    Path("rows.jsonl").write_text('{"question": "a"}\n' * 2)
    text = helium("explain flow.py:answer --input rows.jsonl --limit 2").stdout
    assert "4 nodes: 2 operator calls, 2 model calls, of which 1 to compute" in text
    assert re.search(r'  #4 llm max_tokens=8 = #2 key=\w{8} "a"\n', text)


def test_explain_says_what_its_marks_mean(helium: Helium) -> None:
    Path("short.py").write_text(
        "from helium_agents import gather, llm, prompt, user\n"
        "async def go(row):\n"
        "    draft = llm(user(row['question']), max_tokens=8)\n"
        "    short, again = llm(user(row['question']), max_tokens=4), llm(user('again'))\n"
        "    await gather(llm(user(prompt('improve {draft}', draft=draft))), short, again)\n"
    )
    text = helium("explain short.py:go --input rows.jsonl").stdout
    tree, _, legend = text.partition("\n\n")[2].partition("\n\n")
    assert "= start of #1 key=" in tree
    assert "of #1 key=" in tree
    assert '"improve {#1}"' in tree
    assert "  of #2          needs the answer of call 2" in legend
    assert "  = start of #2  the same with fewer tokens" in legend
    assert "  = #2 " not in legend, "which is not in the tree"


def test_explain_of_many_rows_runs_some_at_once(helium: Helium) -> None:
    Path("slow.py").write_text(
        "import asyncio\n"
        "from helium_agents import llm, user\n"
        "running = most = 0\n"
        "async def go(row):\n"
        "    global running, most\n"
        "    running += 1\n"
        "    most = max(most, running)\n"
        "    await asyncio.sleep(0.01)\n"
        "    await llm(user(row['question']))\n"
        "    running -= 1\n"
        "async def most_running(row):\n"
        "    raise ValueError(most)\n"
    )
    write_rows(Path("rows.jsonl"), 100)
    report = json.loads(helium("explain slow.py:go --input rows.jsonl --limit 100 --json").stdout)
    assert (report["rows"], report["calls"]) == (100, 100)
    assert sys.modules["slow"].most == 16


def test_explain_says_so_where_no_sensible_row_can_be_made_up(helium: Helium, folder: Path) -> None:
    (folder / "picky.py").write_text(
        "from pydantic import BaseModel\n"
        "class Row(BaseModel):\n"
        "    choices: list[str]\n"
        "async def go(row: Row):\n"
        "    return row.choices[3]\n"
    )
    result = helium("explain picky.py:go", expect=1)
    assert result.stdout == ""
    assert (
        "no row can be made up for `row: Row` of go: give real ones with --input" in result.stderr
    )
    assert "it failed before any call: IndexError" in result.stderr
    Path("rows.jsonl").write_text('{"choices": ["a", "b", "c", "d"]}\n')
    helium("explain picky.py:go --input rows.jsonl")


def test_explain_as_json(helium: Helium) -> None:
    report = json.loads(helium("explain flow.py:answer --input rows.jsonl --json").stdout)
    assert (report["rows"], report["calls"]) == (1, 1)
    assert "#1 answer" in report["logical"][1]


def test_explain_needs_rows_where_none_can_be_made_up(helium: Helium) -> None:
    message = helium("explain flow.py:plain", expect=1).stderr
    assert "has no annotation: give real ones with --input" in message


# --- cache -------------------------------------------------------------------------------------


@pytest.fixture
def memo(folder: Path) -> Path:
    """A memo of three entries."""
    store = open_store(folder / "memo")
    for number, label in enumerate(("llm", "llm", "ask_expert")):
        store.put(bytes([number]) * 32, b"value", label=label)
    store.commit().result()
    store.close()
    return folder / "memo"


def test_cache_stats(helium: Helium, memo: Path) -> None:
    text = helium("cache stats --memo memo").stdout
    assert "memo: 3 entries" in text
    assert "ask_expert" in text
    report = json.loads(helium("cache stats --memo memo --json").stdout)
    assert report["entries"] == 3
    assert report["by_label"]["llm"]["entries"] == 2


def test_cache_clear(helium: Helium, memo: Path) -> None:
    assert "nobody to ask: add --yes" in helium("cache clear --memo memo", expect=1).stderr
    assert "3 entries" in helium("cache stats --memo memo").stdout
    assert "Removed 3 entries" in helium("cache clear --memo memo --yes").stdout
    assert "memo: 0 entries" in helium("cache stats --memo memo").stdout


@pytest.mark.parametrize("command", ["cache stats --memo none", "cache clear --memo none --yes"])
def test_cache_of_nothing_is_an_error_and_makes_nothing(helium: Helium, command: str) -> None:
    assert "there is no memo in none: check the path" in helium(command, expect=1).stderr
    assert not Path("none").exists()


# --- demo --------------------------------------------------------------------------------------


def test_demo_twice(helium: Helium, engine: ScriptedEngine) -> None:
    first = helium("demo").stdout
    for text in (
        "SmolLM2-135M-Instruct by HuggingFaceTB, Apache License 2.0",
        "true answer",
        "In which town is the bakery?               Ostrevik  ",
        "of 36 are exactly right",
        "merged with an equal call",
        "Run it again",
    ):
        assert text in first
    assert "its text means nothing" not in first
    assert max(map(len, first.splitlines())) <= 106
    assert all(line["answers"] for line in read_lines(".helium/demo.jsonl"))
    num_requests = engine.num_requests
    second = helium("demo").stdout
    assert "Every call came from the memo, so the engine was not even started" in second
    assert (engine.num_requests, engine.num_starts) == (num_requests, 1)


def test_the_demo_on_the_random_model_says_so(helium: Helium) -> None:
    assert "its text means nothing" in helium("demo --model random").stdout


def test_an_interrupted_demo_is_not_told_of_options_that_it_does_not_have(
    helium: Helium, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(ScriptedEngine):
        async def complete(self, *arguments: Any) -> Completion:
            if self.num_requests == 40:
                os.kill(os.getpid(), signal.SIGINT)
            return await super().complete(*arguments)

    engine = Interrupted()
    monkeypatch.setattr(execute, "VLLM", lambda model, **settings: engine)
    message = helium("demo", expect=130).stderr
    assert message.startswith("stopped\n")
    assert "Run it again to go on: nothing is lost." in message
    assert "--" not in message
    assert "Run it again" in helium("demo").stdout


# --- the program -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["", "run ", "explain ", "demo ", "examples ", "cache stats ", "cache clear "]
)
def test_help_has_examples(helium: Helium, command: str) -> None:
    text = helium(f"{command}--help").stdout
    assert "  Examples:\n    helium" in text
    assert max(map(len, text.splitlines())) <= 100


def test_no_color_is_honoured(helium: Helium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for command in ("run flow.py:answer --input none --output out.jsonl", "explain none.py:answer"):
        assert "\x1b[" in helium(command, expect=1, color=True).stderr
        assert "\x1b[" not in helium(command, 1, color=True, env={"NO_COLOR": "1"}).stderr


def test_version(helium: Helium) -> None:
    assert helium("--version").stdout.startswith("helium, version ")


def test_remembered_runs_import_no_inference_library(folder: Path, helium: Helium) -> None:
    helium("run flow.py:answer --input rows.jsonl --output out.jsonl --memo memo")
    program = """
import sys
from helium_agents.cli import execute, main
from helium_agents.engines.scripted import ScriptedEngine

original = execute.VLLM
def engine(model, **settings):
    original(model, **settings)
    return ScriptedEngine()
execute.VLLM = engine
try:
    main()
finally:
    heavy = {"torch", "vllm", "transformers", "numpy"} & set(sys.modules)
    assert not heavy, heavy
"""
    run = "run flow.py:answer --input rows.jsonl --output again.jsonl --memo memo --json"
    done = subprocess.run(
        [sys.executable, "-c", program, *run.split()],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
    )
    assert json.loads(done.stdout)["computed"] == 0
