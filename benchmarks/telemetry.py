"""What OpenTelemetry costs the process of a run, and how many spans go through its helper.

    python -m benchmarks.telemetry

A row is one operator with one model call of a scripted engine: three spans. CPU is that of the
run's own process, by the kernel's count; a collector in another process throws away what it gets.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from helium_agents import Session, llm, operator, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.telemetry.otel.pipe import Pipe
from helium_agents.telemetry.otel.records import Agent, Answer, Began, Chat, Ended

_COLLECTOR = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@operator
async def ask(x: str) -> str:
    """One model call."""
    return (await llm(user(x))).text


def main() -> None:
    """Measure in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--spans", type=int, default=40_000)
    chosen = parser.parse_args()
    with collector() as url:
        ways: dict[str, dict[str, Any]] = {
            "nobody observes": {},
            "an observer that does nothing": {"observers": [lambda event: None]},
            "spans by the helper process": {"otlp": url},
            "spans in the run's process": {"provider": url},
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(chosen.repeat):
            for name, options in ways.items():
                found[name].append(asyncio.run(rows_of(chosen.rows, **options)))
        print(f"{os.cpu_count()} cores; {chosen.rows} rows; the least of {chosen.repeat} times\n")
        print("| | µs of CPU a row | µs a row |\n|---|---|---|")
        for name, values in found.items():
            cpu_us, wall_us = (min(each) for each in zip(*values, strict=True))
            print(f"| {name} | {cpu_us:.1f} | {wall_us:.1f} |")
        print(asyncio.run(through_helper(chosen.spans, url)))


@contextmanager
def collector() -> Iterator[str]:
    """A collector in a process of its own."""
    with subprocess.Popen([sys.executable, "-c", _COLLECTOR], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


async def rows_of(num_rows: int, *, provider: str = "", **options: Any) -> tuple[float, float]:
    """CPU of this process and time for each row, in microseconds, while the map goes on."""
    shutdown = set_provider(provider) if provider else None
    async with Session(ScriptedEngine(lambda _: "ok", keep_requests=False), **options) as session:
        await asyncio.sleep(1.0)  # the helper starts beside whatever a run begins with
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        async for _ in session.map(ask, (f"row {number}" for number in range(num_rows))):
            pass
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        if shutdown is not None:
            shutdown()
    assert session.summary.num_computed == num_rows
    assert session.summary.num_lost_spans == 0
    return cpu_s / num_rows * 1e6, wall_s / num_rows * 1e6


def set_provider(url: str) -> Any:
    """An application's provider, with the SDK's own processor; what ends it."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    exporter = OTLPSpanExporter(f"{url}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=10**6))
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = provider

    def end() -> None:
        provider.force_flush()
        provider.shutdown()
        trace._TRACER_PROVIDER = before

    return end


async def through_helper(num_spans: int, url: str) -> str:
    """How fast records become spans that the collector has."""
    sink = Pipe(
        {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}, url
    )
    chat = Chat("a model", "vllm", None, "flow:expert", None)
    said = Answer("engine", 100, 50, 20, 0.1, 0.2, 1, 0, False, None, ("stop",), None)
    sink.put(Began(1, 0, bytes(15) + b"1", 1, Agent("flow:expert")))
    sink.put(Ended(1, 2, None, None))
    while not sink.num_delivered:  # noqa: ASYNC110  until the helper has started
        await asyncio.sleep(0.05)
    start_s, cpu_s = time.perf_counter(), time.process_time()
    for number in range(2, num_spans + 2):
        sink.put(Began(number, 1, bytes(15) + b"1", number, chat))
        sink.put(Ended(number, number + 1, None, said))
        if number % 256 == 0:
            await asyncio.sleep(0)
    cpu_us = (time.process_time() - cpu_s) / num_spans * 1e6
    num_lost, _ = await sink.close(num_spans)
    assert not num_lost, num_lost
    rate = num_spans / (time.perf_counter() - start_s)
    return f"\n{rate:,.0f} spans a second through the helper, {cpu_us:.1f} µs of CPU each here"


if __name__ == "__main__":
    main()
