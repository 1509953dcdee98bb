"""Spans go through the helper process to a collector, whatever becomes of either."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from otel_made import VllmLike, answer, attributes, collecting

from helium_agents import Session
from helium_agents.cli import execute, main
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.telemetry.otel import pipe
from helium_agents.telemetry.otel.pipe import Pipe
from helium_agents.telemetry.otel.records import Agent, Began, Ended

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


async def test_a_run_arrives_at_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests")
    with collecting() as collector:
        async with Session(VllmLike(), otlp=collector.url) as session:
            assert len([each async for each in session.map(answer, ["a", "b"])]) == 2
    expert = ["invoke_agent expert", "chat scripted"]
    row = ["row answer", ["invoke_agent answer", "chat scripted", expert, expert]]
    assert collector.tree() == [["invoke_workflow answer", row, row]]
    assert collector.services == {"helium_agents"}
    assert {"gen_ai.client.token.usage", "gen_ai.workflow.duration"} <= collector.metrics
    assert session.summary.num_lost_spans == 0
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in collector.spans)


async def test_a_collector_of_traces_gets_no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "of the tests")
    with collecting() as collector:
        async with Session(VllmLike(), otlp=f"{collector.url}/v1/traces") as session:
            await session.run(answer, "a")
    assert collector.spans
    assert not collector.metrics
    assert collector.services == {"of the tests"}


FLOW = """
from helium_agents import llm, operator, user

@operator
async def answer(question: str) -> str:
    return (await llm(user(question), max_tokens=8)).text
"""


def run_command(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(execute, "VLLM", lambda model, **settings: ScriptedEngine())
    name = f"{folder.name}_flow"  # a module of its own
    Path(f"{name}.py").write_text(FLOW)
    Path("rows.jsonl").write_text('"a"\n"b"\n')
    command = f"run {name}.py:answer --input rows.jsonl --output answers.jsonl --otlp"
    return CliRunner().invoke(main, [*command.split(), url])


def test_the_command_line_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        assert run_command(tmp_path, collector.url, monkeypatch).exit_code == 0
    row = ["row answer", ["invoke_agent answer", "chat scripted"]]
    assert collector.tree() == [["invoke_workflow answer", row, row]]


def test_the_command_line_refuses_what_is_no_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_command(tmp_path, "localhost:4318", monkeypatch)
    assert result.exit_code == 1
    assert "otlp='localhost:4318' must be the URL of a collector" in result.output
    assert not Path("answers.jsonl.part").exists()


KILLED = textwrap.dedent("""
    import asyncio, sys, time
    from helium_agents import Session, llm, operator, user
    from helium_agents.engines.scripted import ScriptedEngine

    class Engine(ScriptedEngine):
        async def complete(self, request, on_delta=None):
            if "hang" in request.messages[0].content:
                print("hangs", flush=True)
                await asyncio.sleep(600)
            return await super().complete(request, on_delta)

    @operator
    async def answer(question):
        return (await llm(user(question))).text

    async def main():
        async with Session(Engine(), otlp=sys.argv[1]) as session:
            async for _ in session.map(answer, ["a", "b", "hang"]):
                pass

    asyncio.run(main())
""")


def test_a_killed_run_leaves_whole_traces(tmp_path: Path) -> None:
    script = tmp_path / "flow.py"
    script.write_text(KILLED)
    with collecting() as collector:
        environ = os.environ | {"PYTHONPATH": str(ROOT), "OTEL_BSP_SCHEDULE_DELAY": "100"}
        command = [sys.executable, str(script), collector.url]
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"hangs\n"
            assert collector.has_spans.wait(60)  # the helper is there, and knows what is open
            process.send_signal(signal.SIGKILL)
        deadline_s = time.monotonic() + 60
        while len(collector.spans) < 10 and time.monotonic() < deadline_s:
            time.sleep(0.05)
    row = ["row answer", ["invoke_agent answer", "chat scripted"]]
    assert collector.tree() == [["invoke_workflow answer", row, row, row]]
    interrupted = [each for each in collector.spans if "helium.interrupted" in attributes(each)]
    assert {span.name for span in interrupted} == {
        "invoke_workflow answer", "row answer", "invoke_agent answer", "chat scripted",
    }  # fmt: skip
    assert len(interrupted) == 4
    assert all(span.end_time_unix_nano for span in collector.spans)


async def test_a_collector_that_is_down_costs_a_warning_and_is_counted() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    session = Session(VllmLike(), otlp=url)
    with pytest.warns(RuntimeWarning, match="spans cannot be sent to") as warned:
        async with session:
            assert [each async for each in session.map(answer, ["a", "b"])]
    assert len(warned) == 1
    assert url in str(warned[0].message)
    assert session.summary.num_lost_spans == len(["workflow"]) + 2 * len(["row", *"aee", *"ccc"])


async def test_a_helper_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_PROGRAM", "raise SystemExit(1) # {path} {parent}")
    session = Session(VllmLike(), otlp="http://127.0.0.1:1")
    with pytest.warns(RuntimeWarning, match="helper process"):
        async with session:
            await answer("a")
    assert session.summary.num_lost_spans == 6


async def test_what_the_helper_is_behind_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_PROGRAM", "import time; time.sleep(600) # {path} {parent}")
    monkeypatch.setattr(pipe, "_CLOSE_S", 0.1)
    sink = Pipe({**os.environ}, "nowhere")
    for number in range(200_000):
        sink.put(Began(number, 0, bytes(16), number, Agent("an agent of some name")))
        sink.put(Ended(number, number, None, None))
    assert len(sink._backlog) < 9 * 2**20
    with pytest.warns(RuntimeWarning, match="in time"):
        num_lost, _ = await sink.close(0)
    assert num_lost == 200_000


def test_a_record_is_small() -> None:
    """What a span takes of the pipe, in bytes."""
    import msgspec

    began = Began(2**63, 2**62, bytes(16), 2**60, Agent("flow:expert"))
    assert len(msgspec.msgpack.encode([began, Ended(2**63, 2**60, None, None)])) < 120
