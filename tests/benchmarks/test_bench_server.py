"""The vLLM server of the benchmarks answers the peers, says why it cannot start, and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.harness.case import make_batch, make_case
from benchmarks.harness.measure import measure
from benchmarks.harness.model import SHAPES
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.server import Server
from benchmarks.harness.settings import EngineSettings
from benchmarks.harness.testbed import Testbed
from benchmarks.harness.workload import Inputs
from benchmarks.systems import systems
from benchmarks.workloads import workloads
from helium_agents.engines.engine_watcher import shared_memory

pytestmark = pytest.mark.engine

PROGRAM = """
import asyncio

from benchmarks.harness.server import Server

asyncio.run(Server(["--model", "missing"]).start())
"""
MOST_S = 60
"""On a busy machine starting anything takes long."""


async def test_peers_over_http_give_the_plain_programs_results(cache_home: Path) -> None:
    settings = EngineSettings("pressure", 0.25, SHAPES["small"])
    case = make_case(
        await make_batch(workloads()["debate"], Inputs(2)), "published", Oracle(settings.shape)
    )
    output_tokens = sum(len(call.output_token_ids) for call in case.known.calls)
    peers = [system for system in systems().values() if system.uses_server]
    assert {system.name for system in peers} == {"langgraph", "agentscope"}
    before = set(psutil.Process().children(recursive=True))
    async with Testbed(settings) as bed:
        await bed.start(server=True)
        started = set(psutil.Process().children(recursive=True)) - before
        shared = shared_memory(process.pid for process in started)
        for system in [*peers, *peers]:  # what one leaves behind must not hang its next run
            run = await measure(system, case, bed)
            assert len(run.requests) == case.batch.num_calls
            assert sum(each.output_tokens for each in run.requests) == output_tokens
            assert run.counts is not None and run.counts.preemptions == 0
            assert run.counts.decode_tokens == output_tokens - case.batch.num_calls
            assert run.counts.prefill_tokens == sum(
                each.prompt_tokens - each.cached_tokens for each in run.requests
            )
    assert set(psutil.Process().children(recursive=True)) <= before
    assert not list(filter(os.path.exists, shared))


async def test_a_server_that_cannot_start_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_module = tmp_path / "vllm" / "entrypoints" / "openai" / "api_server.py"
    server_module.parent.mkdir(parents=True)
    server_module.write_text("import sys\nsys.exit(f'no such model: {sys.argv}')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # vLLM itself takes half a minute to say so
    before = set(psutil.Process().children(recursive=True))
    server = Server(["--model", str(tmp_path / "missing")])
    with pytest.raises(RuntimeError, match="the vLLM server ended at its start") as failed:
        await server.start()
    assert "missing" in str(failed.value)
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_ends_with_its_program(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], start_new_session=True) as program:
        servers = []
        deadline_s = time.monotonic() + MOST_S
        while not servers:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
            servers = [
                child
                for child in psutil.Process(program.pid).children(recursive=True)
                if "vllm.entrypoints.openai.api_server" in child.cmdline()
            ]
        program.send_signal(number)
    assert psutil.wait_procs(servers, timeout=5)[1] == []
