"""Stopping a run from outside, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jsonl import read_lines, write_rows

PROGRAM = """
import asyncio

from helium_agents.batch import batch
from helium_agents.cli import execute, main
from helium_agents.engines.engine import Capacity
from helium_agents.engines.scripted import ScriptedEngine

class Engine(ScriptedEngine):
    async def close(self):
        await super().close()
        with open("closed", "w") as file:
            file.write(f"{self.num_open} open, {len(self.aborted)} aborted")

class Session(batch.Session):
    def waiting(self):
        return f"{self.summary.num_calls} calls were answered"

async def script(request):
    if request.messages[-1].content.startswith("endless"):
        open("endless", "w").close()
        await asyncio.sleep(600)
    return "an answer"

batch.Session = Session
execute.VLLM = lambda model, **settings: Engine(
    script, latency_s=0.05, capacity=Capacity(100, 1, 100, 4)
)
main()
"""

FLOW = """
import time
from helium_agents import llm, user

async def answer(row):
    return (await llm(user(str(row)), max_tokens=8)).text

async def answer_eight(row):
    question = row["question"]
    is_answered = int(question.removeprefix("question ")) < 8
    asked = question if is_answered else f"endless {question}"
    return (await llm(user(asked), max_tokens=8)).text

async def block(row):
    open("blocked", "w").close()
    time.sleep(60)
"""

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts `helium run flow.py:NAME` on 500 rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flow.py").write_text(FLOW)
    write_rows(tmp_path / "rows.jsonl", 500)
    started: list[subprocess.Popen[str]] = []

    def start(name: str) -> subprocess.Popen[str]:
        run = f"run flow.py:{name} --input rows.jsonl --output out.jsonl --memo memo"
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *run.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def num_lines() -> int:
    part = Path("out.jsonl.part")
    return part.read_text().count("\n") if part.exists() else 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_cleanly(start: Start, number: int, code: int) -> None:
    process = start("answer_eight")
    wait_until(lambda: num_lines() >= 3 and Path("endless").exists())
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == code
    num_rows = len(read_lines("out.jsonl.part"))
    assert 3 <= num_rows <= 8
    assert not Path("out.jsonl").exists()
    assert re.fullmatch(
        rf"stopped\n{num_rows} of 500 rows are in out.jsonl.part"
        r"(, \d+ more (is|are) remembered)?\. "
        r"Run it again with --resume to go on: nothing is lost\.\n",
        message,
    )
    assert Path("closed").read_text().startswith("0 open, ")
    assert not Path("closed").read_text().endswith(", 0 aborted")


def test_a_second_signal_stops_a_workflow_that_blocks(start: Start) -> None:
    process = start("block")
    wait_until(Path("blocked").exists)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert message == "stopped\n"


def test_what_waits_for_what_is_printed_each_time_and_the_run_goes_on(start: Start) -> None:
    process = start("answer")
    assert process.stderr is not None
    wait_until(lambda: num_lines() >= 3)
    numbers = []
    for _ in range(2):
        process.send_signal(signal.SIGQUIT)
        line = process.stderr.readline()
        numbers.append(int(line.removesuffix(" calls were answered\n")))
        wait_until(lambda: num_lines() > numbers[-1])
    assert 3 <= numbers[0] < numbers[1]
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert message.startswith("stopped\n")
