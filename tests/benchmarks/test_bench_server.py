"""The vLLM server of the benchmarks says why it cannot start, and never outlives its program."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.harness.server import Server

pytestmark = pytest.mark.engine

PROGRAM = """
import asyncio

from benchmarks.harness.server import Server

asyncio.run(Server(["--model", "missing"]).start())
"""
MOST_S = 60
"""On a busy machine starting anything takes long."""


async def test_a_server_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
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
