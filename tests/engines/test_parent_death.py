"""The program is killed while its engine starts or computes: nothing outlives it for 5 seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from helium_agents.engines.engine_watcher import shared_memory

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that tells of a parent's end"),
]

PROGRAMS = """
import asyncio, json, os, sys

from helium_agents.engines.engine import ChatMessage, Request
from helium_agents.engines.vllm import VLLM
from helium_agents.graph.sampling import Sampling


async def compute(**engine_args):
    engine = VLLM("random", kv_tokens=8192, **engine_args)
    await engine.start()
    prompt = await engine.render([ChatMessage("user", "Hello")])
    request = Request("r", (), prompt, Sampling(max_tokens=8000, temperature=1.0, n=8))
    await engine.complete(request, lambda delta: print("computing", flush=True))


if __name__ == "__main__":
    import vllm.v1.engine.async_llm  # once for all programs, which are forked from this one

    for line in sys.stdin:
        program = os.fork()
        if not program:
            asyncio.run(compute(**json.loads(line)))
            os._exit(0)
        print(program, flush=True)
        os.waitpid(program, 0)
        print("gone", flush=True)
"""


MOST_START_S = 200
"""On a machine that is busy with other things a start takes minutes."""


class Program:
    """A program that starts an engine and computes.

    Args:
        forker: The process that is asked for it.
        **engine_args: Of the engine.
    """

    def __init__(self, forker: subprocess.Popen[str], **engine_args: object) -> None:
        import psutil

        assert forker.stdin is not None and forker.stdout is not None
        forker.stdin.write(json.dumps(engine_args) + "\n")
        forker.stdin.flush()
        self.said = forker.stdout
        self._process = psutil.Process(int(self.said.readline()))
        self._is_gone = False

    def descendants(self) -> list[Any]:
        return list(self._process.children(recursive=True))

    def spawned(self) -> int:
        """How many processes of the engine there are."""
        import psutil

        num_spawned = 0
        for child in self.descendants():
            with suppress(psutil.NoSuchProcess):  # vLLM asks other programs, which end at once
                title = " ".join(child.cmdline())
                num_spawned += "VLLM::" in title or "spawn_main" in title
        return num_spawned

    def wait_for(self, num_spawned: int) -> None:
        """Wait until there are so many.

        Raises:
            psutil.NoSuchProcess: The program has ended.
        """
        deadline_s = time.monotonic() + MOST_START_S
        while self.spawned() < num_spawned:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it, if it has not ended, and wait for its end."""
        if not self._is_gone:
            self._process.send_signal(signal.SIGKILL)
            while self.said.readline() != "gone\n":
                pass
            self._is_gone = True


@pytest.fixture(scope="module")
def forker(
    cache_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[str]]:
    folder = tmp_path_factory.mktemp("programs")
    script, errors = folder / "programs.py", folder / "stderr"
    script.write_text(PROGRAMS)
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        yield process
    assert "Traceback" not in errors.read_text(), errors.read_text()


def is_running(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def core_was_spawned(program: Program) -> None:
    program.wait_for(1)
    time.sleep(0.1)  # it has been told what to run, which Python would miss with a traceback


def core_imports(program: Program) -> None:
    program.wait_for(1)
    time.sleep(2)


def worker_loads(program: Program) -> None:
    program.wait_for(2)
    time.sleep(4)


def engine_computes(program: Program) -> None:
    assert program.said.readline() == "computing\n"


@pytest.mark.parametrize("moment", [core_was_spawned, core_imports, worker_loads, engine_computes])
def test_nothing_outlives_a_killed_program(
    forker: subprocess.Popen[str], moment: Callable[[Program], None]
) -> None:
    has_worker = moment is worker_loads
    program = Program(forker, **{"distributed_executor_backend": "mp"} if has_worker else {})
    try:
        moment(program)
        descendants = program.descendants()  # the watcher is one of them
        shared = shared_memory(child.pid for child in descendants)
    finally:
        program.kill()
    assert len(descendants) >= 2
    deadline_s = time.monotonic() + 60
    while (alive := list(filter(is_running, descendants))) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert [(process.pid, process.status(), process.cmdline()) for process in alive] == []
    assert [path for path in shared if os.path.exists(path)] == []
    assert shared or not has_worker
