"""A real vLLM HTTP server, as the users of other frameworks run one: started, awaited, stopped."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import httpx

from benchmarks.harness.measured_engine import RequestLog
from benchmarks.harness.records import Sample
from helium_agents.engines.cpu_cores import core_environment
from helium_agents.engines.engine_processes import EngineProcesses

_START_S = 240.0
_STOP_S = 20.0
_ROOT = Path(__file__).parents[2]

MODEL_NAME = "benchmark"

_GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")


class Server:
    """The server's processes, which end with this program however it ends.

    Args:
        arguments: Of ``vllm serve``, without host, port and the model's public name.
        port: Where it listens; by default one that is free.

    Attributes:
        port: Where it listens; 0 before it is started.
    """

    def __init__(self, arguments: list[str], port: int = 0) -> None:
        self.port = port
        self.log = RequestLog()
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        # With their mark the server's engine also waits as the one in this process does.
        self._processes = EngineProcesses(is_tracked=False)
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the server
        # The server closes a connection that was idle for some seconds, maybe just as it is used.
        self._client = httpx.AsyncClient(
            timeout=30, limits=httpx.Limits(max_keepalive_connections=0)
        )

    @property
    def url(self) -> str:
        """Base of the OpenAI-compatible API."""
        return f"{self._root}/v1"

    async def start(self) -> None:
        """Start it and wait until it answers; half a minute to a minute on two cores.

        Raises:
            RuntimeError: It ended, or did not answer in time; with the end of what it said.
        """
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        self._root = f"http://127.0.0.1:{self.port}"
        try:
            self._process = await self._run(self.port)
            async with asyncio.timeout(_START_S):
                while not await self._is_healthy():
                    if self._process.returncode is not None:
                        raise RuntimeError(f"the vLLM server ended at its start:\n{self._tail()}")
                    await asyncio.sleep(0.2)
            self._processes.note_shared_memory()
        except TimeoutError:
            message = f"the vLLM server did not answer in {_START_S:.0f} s:\n{self._tail()}"
            await self.close()
            raise RuntimeError(message) from None
        except BaseException:
            await self.close()
            raise

    async def _run(self, port: int) -> asyncio.subprocess.Process:
        self._processes.watch()
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "vllm.entrypoints.openai.api_server"),
            *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", MODEL_NAME),
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            cwd=_ROOT,  # where the logits processor is found
            env=os.environ
            | {
                "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache
                "VLLM_LOGGING_LEVEL": "WARNING",
                "VLLM_NO_USAGE_STATS": "1",
                "HF_HUB_OFFLINE": "1",
            }
            | core_environment()
            | self._processes.environment,
            process_group=0,  # Ctrl-C is for this program, which then stops the server
        )

    async def _is_healthy(self) -> bool:
        try:
            return (await self._client.get(f"{self._root}/health")).status_code == 200
        except httpx.TransportError:
            return False

    def _tail(self) -> str:
        self._output.seek(0)
        return "".join(self._output.readlines()[-25:])

    async def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes."""
        (await self._client.post(f"{self._root}/reset_prefix_cache")).raise_for_status()

    async def sample(self) -> Sample:
        """What vLLM counts."""
        at_s = self.log.now()
        lines = (await self._client.get(f"{self._root}/metrics")).text.splitlines()
        found = {
            line.partition("{")[0]: float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith(_GAUGES)
        }
        running, waiting, usage = (found.get(name, 0.0) for name in _GAUGES)
        return Sample(round(at_s, 3), int(running), int(waiting), round(usage, 4))

    async def kill(self) -> None:
        """Kill it, as the system may, and what it leaves behind."""
        assert self._process is not None
        self._process.kill()
        await self.close()

    async def close(self) -> None:
        """Stop the server and its engine. Idempotent."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await process.wait()
        await asyncio.to_thread(self._processes.end)
        if process is not None:
            await process.wait()
        await self._client.aclose()
        self._output.close()
