"""What OpenTelemetry costs the process of a run, and how many spans go through its helper.

    python -m benchmarks.telemetry
    python -m benchmarks.telemetry --instructions

A row is one operator with one model call of a scripted engine that answers at once: three spans,
and the least that a row can cost. CPU is that of the run's own process, by the kernel's count; a
collector in another process throws away what it gets. Instructions are counted by valgrind, and are
the same however busy the machine is.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import psutil

from benchmarks.harness.statistics import Interval, median_interval, paired_ratio
from helium_agents import Session, llm, operator, user
from helium_agents.engines.engine import Completion, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.telemetry.otel.pipe import Pipe
from helium_agents.telemetry.otel.records import Answer, Began, Chat, Ended

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


_SPANS_A_SECOND = 10_000
_FEW_ROWS, _MANY_ROWS = 100, 1_700


@operator
async def ask(x: str) -> str:
    """One model call."""
    return (await llm(user(x))).text


def main() -> None:
    """Measure in turns and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--spans", type=int, default=50_000)
    parser.add_argument("--instructions", action="store_true", help="count these alone; slow")
    chosen = parser.parse_args()
    with collector() as url:
        if chosen.instructions:
            print_instructions(url)
            return
        print(f"{os.cpu_count()} cores, of which a collector takes its part too\n")
        print_rows(chosen.rounds, chosen.rows, url)
        print_paced(chosen.rounds, chosen.rows, url)
        print_helper(chosen.rounds, chosen.spans, url)


def print_rows(num_rounds: int, num_rows: int, url: str) -> None:
    """What a row costs, by who observes."""
    ways: dict[str, dict[str, Any]] = {
        "nobody observes": {},
        "an observer that does nothing": {"observers": [lambda event: None]},
        "spans by the helper process": {"otlp": url},
        "spans in the run's process": {"provider": url},
    }
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(num_rounds):
        for name, options in ways.items():
            cpu_us, wall_us = asyncio.run(rows_of(num_rows, **options))
            cpu[name].append(cpu_us)
            wall[name].append(wall_us)
    print(f"{num_rounds} rounds of {num_rows:,} rows; ratios are of the same round\n")
    print("| | CPU of a row, µs | ÷ nobody | time ÷ nobody |\n|---|---|---|---|")
    plain, plain_wall = next(iter(cpu.values())), next(iter(wall.values()))
    for name in ways:
        of_cpu, of_wall = paired_ratio(cpu[name], plain), paired_ratio(wall[name], plain_wall)
        print(f"| {name} | {median(cpu[name]):.0f} | {shown(of_cpu)} | {shown(of_wall)} |")
    observed = cpu["spans by the helper process"]
    of_span = median([(a - b) / 3 for a, b in zip(observed, plain, strict=True)])
    share = of_span * 10_000 / 1e6
    print(
        f"\nA span takes {of_span:.1f} µs of the run: ten thousand a second, {share:.0%} of a core."
    )


def print_paced(num_rounds: int, num_rows: int, url: str) -> None:
    """How much longer a map takes whose engine is fast enough for ten thousand spans a second."""
    times: list[tuple[float, float]] = []
    for _ in range(num_rounds):
        _, plain_us = asyncio.run(rows_of(num_rows, rate=_SPANS_A_SECOND / 3))
        _, observed_us = asyncio.run(rows_of(num_rows, rate=_SPANS_A_SECOND / 3, otlp=url))
        times.append((observed_us, plain_us))
    ratio = paired_ratio(*zip(*times, strict=True))
    num_spans = 3e6 / median(observed for observed, _ in times)
    print(
        f"\nWith an engine that answers {_SPANS_A_SECOND / 3:,.0f} requests a second: "
        f"{num_spans:,.0f} spans a second, time ÷ nobody {shown(ratio)}"
    )


def print_helper(num_rounds: int, num_spans: int, url: str) -> None:
    """How many spans the helper can send, and what one takes of a core there."""
    found = [asyncio.run(through_helper(num_spans, url)) for _ in range(num_rounds)]
    rate, cpu_us = (median_interval(each) for each in zip(*found, strict=True))
    print(
        f"\n{rate.median:,.0f} spans a second go through the helper ({rate.low:,.0f} to "
        f"{rate.high:,.0f}), each for {cpu_us.median:.0f} µs of its CPU"
    )


def print_instructions(url: str) -> None:
    """How many instructions a row takes in the run's own process, by who observes."""
    ways = {
        "nobody observes": "",
        "an observer that does nothing": "observers=[lambda event: None]",
        "spans by the helper process": f"otlp={url!r}",
    }
    plain = 0.0
    print("| | instructions a row | ÷ nobody |\n|---|---|---|")
    for name, options in ways.items():
        fewer, more = (instructions_of(num_rows, options) for num_rows in (_FEW_ROWS, _MANY_ROWS))
        of_row = (more - fewer) / (_MANY_ROWS - _FEW_ROWS)
        plain = plain or of_row
        print(f"| {name} | {of_row:,.0f} | {of_row / plain:.2f} |", flush=True)


def instructions_of(num_rows: int, options: str) -> int:
    """What a process takes from its beginning, with a map of so many rows."""
    program = (
        "import asyncio; from benchmarks.telemetry import rows_of; "
        f"asyncio.run(rows_of({num_rows}, {options}))"
    )
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = subprocess.run(
        [*command, sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "0"}, stderr=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    (counted,) = re.findall(r"I *refs: *([\d,]+)", done.stderr)
    return int(counted.replace(",", ""))


def shown(ratio: Interval) -> str:
    """A ratio with its interval."""
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


@contextmanager
def collector() -> Iterator[str]:
    """A collector in a process of its own."""
    with subprocess.Popen([sys.executable, "-c", _COLLECTOR], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


class Paced(ScriptedEngine):
    """Answers so many requests a second at most, as an engine does that is busy.

    Args:
        rate: How many.
    """

    def __init__(self, rate: float = math.inf) -> None:
        super().__init__(lambda _: "ok", keep_requests=False)
        self._each_s, self._free_s = 1 / rate, 0.0

    async def complete(self, request: Request, on_delta: Any = None) -> Completion:
        """Answer when its turn has come."""
        if self._each_s:
            now_s = time.monotonic()
            self._free_s = max(self._free_s, now_s) + self._each_s
            await asyncio.sleep(self._free_s - now_s)
        return await super().complete(request, on_delta)


async def rows_of(
    num_rows: int, *, provider: str = "", rate: float = math.inf, **options: Any
) -> tuple[float, float]:
    """CPU of this process and time for each row, in microseconds, while the map goes on."""
    shutdown = set_provider(provider) if provider else None
    async with Session(Paced(rate), **options) as session:
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


async def through_helper(num_spans: int, url: str) -> tuple[float, float]:
    """How many records a second become spans that the collector has, and the helper's CPU of one.

    All are of model calls, which have most to say. Starting the helper does not count.
    """
    sink = Pipe({**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": url}, url)
    chat = Chat("a model", "vllm", None, "flow:expert", None)
    said = Answer("engine", 100, 50, 20, 0.1, 0.2, 1, 0, False, None, ("stop",), None)
    await put(sink, range(1, 513), chat, said)
    while not sink.num_delivered:  # noqa: ASYNC110  until the helper has started
        await asyncio.sleep(0.05)
    start_s, cpu_s = time.perf_counter(), cpu_of(sink)
    await put(sink, range(513, 513 + num_spans), chat, said)
    while sink.num_delivered < 512 + num_spans // 512 * 512:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    took_s, cpu_s = time.perf_counter() - start_s, cpu_of(sink) - cpu_s
    num_lost, _ = await sink.close(num_spans)
    assert not num_lost, num_lost
    return num_spans / took_s, cpu_s / num_spans * 1e6


async def put(sink: Pipe, numbers: range, chat: Chat, said: Answer) -> None:
    """As many spans as the helper takes."""
    for number in numbers:
        sink.put(Began(number, 1, bytes(15) + b"1", number, chat))
        sink.put(Ended(number, number + 1, None, said))
        if number % 256 == 0:
            await asyncio.sleep(0)
            while len(sink._backlog) > 2**20:  # noqa: ASYNC110  more would be dropped
                await asyncio.sleep(0.001)


def cpu_of(sink: Pipe) -> float:
    """Seconds of CPU that the helper has taken."""
    times = psutil.Process(sink._process.pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
