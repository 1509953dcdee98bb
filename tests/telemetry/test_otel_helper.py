"""Spans go through the helper process to a collector, whatever becomes of either."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from click.testing import CliRunner, Result
from otel_made import VllmLike, answer, attributes, collecting

from helium_agents import Session, llm, user
from helium_agents.cli import execute, main
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.telemetry.otel import Otlp, helper, pipe
from helium_agents.telemetry.otel.helper import Patience
from helium_agents.telemetry.otel.latest import Latest
from helium_agents.telemetry.otel.pipe import Pipe
from helium_agents.telemetry.otel.records import LENGTH_BYTES, Agent, Answer, Began, Ended, Said
from helium_agents.telemetry.otel.sending import Sender

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_START_S", 60.0)  # four others may start meanwhile
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


async def test_a_collector_that_hangs_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipe, "_CLOSE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:  # it takes connections, and that is all
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        session = Session(VllmLike(), otlp=url)
        with pytest.warns(RuntimeWarning, match="in time"):
            async with session:
                await answer("a")
    assert session.summary.num_lost_spans == 6


def test_the_helper_has_patience_while_the_run_goes_on_and_a_little_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(helper.time, "monotonic", lambda: now_s)
    sender = SimpleNamespace(news_s=now_s)
    patience = Patience(os.getppid(), cast(Sender, sender))
    now_s += 3_600.0
    assert not patience()
    patience.begin()
    assert not patience()
    now_s += 4.0
    assert not patience()
    now_s += 2.0
    assert patience()
    sender.news_s = now_s  # it answers, if slowly
    assert not patience()
    now_s += 30.0
    sender.news_s = now_s
    assert patience()
    orphan = Patience(-1, cast(Sender, sender))
    assert not orphan()
    now_s += 6.0
    assert orphan()


async def test_any_text_arrives() -> None:
    with collecting() as collector:
        async with Session(VllmLike(), otlp=Otlp(collector.url, content=True)):
            await llm(user("A lone \ud800"))
    (span,) = collector.spans
    assert "A lone ?" in attributes(span)["gen_ai.input.messages"]


async def test_a_helper_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_PROGRAM", "raise SystemExit(1) # {path} {parent}")
    session = Session(VllmLike(), otlp="http://127.0.0.1:1")
    with pytest.warns(RuntimeWarning, match="helper process"):
        async with session:
            await answer("a")
    assert session.summary.num_lost_spans == 6


async def test_what_the_helper_is_behind_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_PROGRAM", "import time; time.sleep(600) # {path} {parent}")
    monkeypatch.setattr(pipe, "_START_S", 0.1)
    sink = Pipe({**os.environ}, "nowhere")
    sink._is_writing = True  # as if the pipe were full
    said = Said((("user", "a prompt " * 1_000),), ("a text",), ((),))
    how = Answer("engine", 1, 0, 1, None, None, 1, 0, False, None, ("stop",), said)
    for number in range(3_000):
        sink.put(Began(number, 0, bytes(16), number, Agent("an agent of some name")))
        if number >= 1_000:  # so many are open at once
            sink.put(Ended(number - 1_000, number, None, how))
    for number in range(2_000, 3_000):
        sink.put(Ended(number, number, None, how))
    sink._send()
    assert 8 * 2**20 < len(sink._backlog) < 9 * 2**20
    begun, ended = spans_in(bytes(sink._backlog))
    assert 0 < len(begun) < 3_000
    assert begun == ended
    with pytest.warns(RuntimeWarning, match="in time"):
        num_lost, _ = await sink.close(0)
    assert num_lost == 3_000


def spans_in(frames: bytes) -> tuple[set[int], set[int]]:
    """Which spans begin and which end in what waits for the helper."""
    decode = msgspec.msgpack.Decoder(list[Began | Ended]).decode
    begun, ended, at = set(), set(), 0
    while at < len(frames):
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(frames[at:start], "big")
        for record in decode(frames[start:at]):
            (begun if isinstance(record, Began) else ended).add(record.span)
    return begun, ended


def test_a_record_is_small() -> None:
    """What a span takes of the pipe, in bytes."""
    began = Began(2**63, 2**62, bytes(16), 2**60, Agent("flow:expert"))
    assert len(msgspec.msgpack.encode([began, Ended(2**63, 2**60, None, None)])) < 120


async def test_grpc_has_it_by_the_stock_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

    names = []

    class Collector(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            names.extend(span.name for span in request.resource_spans[0].scope_spans[0].spans)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    async with Session(VllmLike(), otlp=f"http://127.0.0.1:{port}") as session:
        await answer("a")
    server.stop(None)
    assert session.summary.num_lost_spans == 0
    assert sorted(names) == ["chat scripted"] * 3 + [
        f"invoke_agent {n}" for n in ("answer", "expert", "expert")
    ]


async def test_spans_after_the_helpers_end_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_PROGRAM", "raise SystemExit(1) # {path} {parent}")
    sink = Pipe({**os.environ}, "nowhere")
    sink.put(Began(1, 0, bytes(16), 1, Agent("flow:f")))
    sink.put(Ended(1, 2, None, None))
    await sink._has_news.wait()
    for number in range(2, 1_000):
        sink.put(Began(number, 0, bytes(16), 1, Agent("flow:f")))
        sink.put(Ended(number, 2, None, None))
    with pytest.warns(RuntimeWarning, match="helper process"):
        num_lost, _ = await sink.close(0)
    assert num_lost == 999
    assert not sink._backlog


def test_what_was_set_long_ago_is_forgotten() -> None:
    latest = Latest[int, int]()
    for number in range(50_000):
        latest[number] = number
    assert 10_000 <= len(latest) <= 20_000
    assert latest.get(49_999 - 9_999) == 40_000
    assert latest.get(0) is None
