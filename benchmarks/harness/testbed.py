"""An engine in this process and an HTTP server with the same settings, each started when needed.

Both compute the same model with the same flags; an idle one costs no CPU time while the other is
measured.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.harness.calibration import MeasurableEngine
from benchmarks.harness.engine_counts import CountsFile, EngineCounts
from benchmarks.harness.measured_engine import MeasuredEngine, RequestLog
from benchmarks.harness.model import model_directory
from benchmarks.harness.server import Server
from benchmarks.harness.settings import BLOCK_TOKENS, EngineSettings
from helium_agents.engines.cpu_cores import IN_ENGINE_CORE, computes_on_all_cores
from helium_agents.engines.vllm import VLLM

PROCESSOR = "benchmarks.harness.digest_processor:DigestAnswers"
SCHEDULER = "benchmarks.harness.counting_scheduler.counting_scheduler"


class Testbed:
    """Where systems run; close it by ``async with``.

    Args:
        settings: Of the engine and the server.
        engine: One that is there already, in place of the one that `start` would make.
    """

    __test__ = False  # no class of tests, whatever pytest thinks of its name

    def __init__(self, settings: EngineSettings, engine: MeasurableEngine | None = None) -> None:
        self.settings = settings
        self._engine = None if engine is None else MeasuredEngine(engine)
        self._server: Server | None = None
        self._resources = ExitStack()

    @cached_property
    def folder(self) -> Path:
        """A directory for what systems keep while this is open."""
        return Path(self._resources.enter_context(tempfile.TemporaryDirectory()))

    async def __aenter__(self) -> Testbed:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            await self._server.close()
        if self._engine is not None:
            await self._engine.close()
        self._resources.close()

    async def start(self, *, server: bool) -> None:
        """Start the server, or the engine in this process, unless it runs."""
        if server and self._server is None:
            self._server = Server(_command_line(self.settings))
            with self._counts_file(server=True).named_in_environment():
                await self._server.start()
        elif not server and self._engine is None:
            self._engine = MeasuredEngine(_engine(self.settings))
            with self._counts_file(server=False).named_in_environment():
                await self._engine.start()

    @property
    def engine(self) -> MeasuredEngine:
        """The engine in this process."""
        assert self._engine is not None, "not started"
        return self._engine

    @property
    def server(self) -> Server:
        """The HTTP server."""
        assert self._server is not None, "not started"
        return self._server

    def one(self, *, server: bool) -> MeasuredEngine | Server:
        """The one that is asked."""
        return self.server if server else self.engine

    def begin(self, *, server: bool) -> RequestLog:
        """Begin to note requests anew, by the event loop's clock, which may be a virtual one."""
        log = self.one(server=server).log = RequestLog(asyncio.get_running_loop().time)
        return log

    def counts(self, *, server: bool) -> EngineCounts | None:
        """What was computed since the start; `None` of an engine that does not count."""
        return self._counts_file(server=server).read()

    def _counts_file(self, *, server: bool) -> CountsFile:
        return CountsFile(self.folder / ("server.counts" if server else "engine.counts"))


def _engine(settings: EngineSettings) -> VLLM:
    return VLLM(
        model_directory(settings.shape),
        dtype=settings.dtype,
        max_model_tokens=settings.max_model_tokens,
        kv_tokens=settings.kv_tokens,
        max_requests=settings.max_requests,
        name=settings.shape.name,
        **_shared_arguments(settings),
        logits_processors=[PROCESSOR],
    )


def _shared_arguments(settings: EngineSettings) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "load_format": "dummy",
        "block_size": BLOCK_TOKENS,
        "enable_chunked_prefill": True,
        "max_num_batched_tokens": 2048,
        "scheduler_cls": SCHEDULER,
    }
    return arguments if settings.is_gpu else arguments | {"enforce_eager": True}


def _command_line(settings: EngineSettings) -> list[str]:
    num_blocks = settings.kv_tokens // BLOCK_TOKENS + 1  # vLLM keeps one to itself
    command = [
        *("--model", str(model_directory(settings.shape))),
        *("--dtype", settings.dtype),
        *("--max-model-len", str(settings.max_model_tokens)),
        *("--num-gpu-blocks-override", str(num_blocks)),
        *("--max-num-seqs", str(settings.max_requests)),
        *("--logits-processors", PROCESSOR),
        *("--enable-prompt-tokens-details", "--disable-uvicorn-access-log"),
    ]
    if not settings.is_gpu:
        # Only its being there matters: vLLM then neither measures memory nor asks for most of it.
        command += ["--kv-cache-memory-bytes", str(1 << 26)]
        if computes_on_all_cores():
            command += ["--distributed-executor-backend", IN_ENGINE_CORE]
    for name, value in _shared_arguments(settings).items():
        command += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return command
