"""Starts vLLM's processes and ends them, so that none is left whoever fails, cancels or is killed.

Starting takes 10 to 30 s: imports, then an engine core process, and where there are several GPUs or
many CPU cores worker processes. All of it runs in a thread of its own, so the event loop stays free
but for imports that hold the interpreter (0.6 s at most were seen). Three facts shape the code:

- A spawned process runs the user's script again under another name. A script that starts the
  engine without a ``__main__`` guard would start another one in there; that child ends with an
  exit code of its own, by which the parent knows what to say.
- A thread cannot be cancelled. Before it starts processes it is told to stop by a lock that only
  one of the two can take; after that its processes are killed, which makes it fail at once.
- A terminal sends Ctrl-C to every process of the group. Signal masks are inherited, so the thread
  blocks it: the parent alone decides what an interrupt means.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from helium_agents.engines.engine_log import LOG_VARIABLE, EngineLog
from helium_agents.engines.engine_processes import EngineProcesses
from helium_agents.engines.engine_watcher import MARKER
from helium_agents.engines.step_report import STEPS_VARIABLE, StepReport
from helium_agents.engines.vllm.liveness import Launched
from helium_agents.engines.vllm_installation import TORCH_INDEX, instead_or_installed
from helium_agents.errors import EngineStartError

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_UNGUARDED_MAIN = 78
"""Exit code of a child that found the user's script starting an engine while it was imported."""

_ENVIRONMENT = {
    "PYTHONWARNINGS": "ignore",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_LOGS": "-all",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a forked process loads no plugins
}
"""What the processes find in their environment, unless the user has set it."""

_ONE_START_AT_A_TIME = threading.Lock()
"""The environment is one for the whole process, so it can serve one start only."""


async def launch(arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Launched:
    """Start an engine.

    Args:
        arguments: Arguments of `AsyncEngineArgs`.
        environment: Environment variables that its processes get besides.

    Raises:
        EngineStartError: It did not start; nothing of it is left.
    """
    _check_can_start()
    start = _Start(arguments, environment)
    executor = ThreadPoolExecutor(1, thread_name_prefix="vllm-start")
    future = asyncio.get_running_loop().run_in_executor(executor, start.run)
    executor.shutdown(wait=False)
    try:
        launched = await asyncio.shield(future)
    except asyncio.CancelledError:
        await _undo(start, future)
        raise
    except Exception as error:
        explained = _explained(error, start.log)
        start.log.close()
        start.steps.close()
        raise explained from error
    launched.listen()
    return launched


def _check_can_start() -> None:
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # This process is being made by multiprocessing and is importing the user's script.
        if MARKER in os.environ:
            os._exit(_UNGUARDED_MAIN)
        raise EngineStartError(_unguarded_message())
    if importlib.util.find_spec("vllm") is None:
        raise EngineStartError(f"vLLM is not installed. {instead_or_installed()}")


def _main_looks_unguarded() -> bool:
    """Whether the user's script never asks for its name, which a guard does."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return path is not None and "__name__" not in Path(path).read_text("utf-8", "replace")
    except OSError:
        return False


def _try_to_spawn() -> None:
    """Find out that the script has no guard: vLLM does not always say how its process ended."""
    process = multiprocessing.get_context("spawn").Process(target=os.getpid, name="EngineTrial")
    process.start()
    process.join()
    if process.exitcode == _UNGUARDED_MAIN:
        raise EngineStartError(_unguarded_message())


def _unguarded_message() -> str:
    script = getattr(sys.modules.get("__main__"), "__file__", None) or "the script"
    return (
        f"{script} starts an engine while it is imported. The engine is a process of its own, "
        "which imports the script again; so put what runs the program under a guard:\n\n"
        '    if __name__ == "__main__":\n'
        "        asyncio.run(main())"
    )


def _explained(error: Exception, log: EngineLog) -> EngineStartError:
    if isinstance(error, EngineStartError):
        return error
    text = str(error).strip()
    if f": {_UNGUARDED_MAIN}" in text:  # "Failed core proc(s): {'EngineCore': 78}"
        return EngineStartError(_unguarded_message())
    if "Engine core initialization failed" in text:
        explained = EngineStartError(
            f"vLLM's engine process ended while it was starting: {log.cause() or 'it says no more'}"
        )
        error.add_note(log.text())  # all of it, for a traceback
        return explained
    if isinstance(error, ImportError):
        return EngineStartError(f"vLLM is installed but cannot be imported: {text}")
    if isinstance(error, ValidationError):
        text = _first_fault(error)
    if "failed to be inspected" in text and importlib.util.find_spec("torchvision") is None:
        text = (
            f"{text} vLLM's code for models that see images often needs torchvision: install the "
            f"one that fits torch (without a GPU with --index-url {TORCH_INDEX}), or give "
            "VLLM(..., model_impl='transformers')"
        )
    return EngineStartError(f"vLLM did not start: {text or type(error).__name__}")


def _first_fault(error: ValidationError) -> str:
    """What pydantic says of the first argument that does not fit, without its input and links."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = f"{fault['loc'][0]}: " if fault["loc"] else ""
    return place + fault["msg"].removeprefix("Value error, ")


def _is_no_obituary(record: logging.LogRecord) -> bool:
    """Whether to print what vLLM logs in this process; a death is told by `EngineDied`."""
    return "output_handler failed" not in record.getMessage()


class _Abandoned(Exception):
    """Nobody waits for this start any more."""


class _Start:
    """One start of an engine, in a thread."""

    def __init__(self, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._arguments = arguments
        self._environment = dict(environment)
        self.log = EngineLog()
        self.steps = StepReport()
        self.processes = EngineProcesses()
        self._decided = threading.Lock()  # taken by `run` to start processes, or to prevent that

    def run(self) -> Launched:
        """Import vLLM, configure it, start its processes, and wait until they are ready."""
        with _ONE_START_AT_A_TIME:
            # The tracker, which the processes share, would unblock the signal if it started later;
            # and it is not the engine's alone, so it must not carry the mark.
            # A terminal sends Ctrl-C and Ctrl-\\ to all processes; only the program is meant.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGQUIT})
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGQUIT})
            self.processes.watch()
            try:
                with _environment(self.log, self._environment | self._own_environment):
                    llm = self._imported_and_started()
                self.processes.note_shared_memory()
            except BaseException:
                self.processes.end()
                raise
            return Launched(llm, self.processes, self.log, self.steps)

    @property
    def _own_environment(self) -> dict[str, str]:
        return {**self.processes.environment, STEPS_VARIABLE: self.steps.path}

    def _imported_and_started(self) -> AsyncLLM:
        # What vLLM's own modules do with torch's is not the user's to repair.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.")
        if _main_looks_unguarded():
            _try_to_spawn()
        for module in ("torch", "vllm", "vllm.v1.engine.async_llm"):
            if self._decided.locked():
                raise _Abandoned
            importlib.import_module(module)
        if LOG_VARIABLE in os.environ:
            logging.getLogger("vllm.v1.engine.async_llm").addFilter(_is_no_obituary)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        engine_args = AsyncEngineArgs(**self._arguments)
        config = engine_args.create_engine_config()
        if not self.may_decide():
            raise _Abandoned
        return AsyncLLM.from_vllm_config(config, disable_log_stats=engine_args.disable_log_stats)

    def may_decide(self) -> bool:
        """Whether who asks is the first: `run`, before it starts processes, or who abandons it."""
        return self._decided.acquire(blocking=False)


async def _undo(start: _Start, future: asyncio.Future[Launched]) -> None:
    """Leave nothing of a start that was cancelled; a second cancellation does not stop this."""
    if start.may_decide():  # it has started nothing and will not; nobody asks why
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return
    while not future.done():
        start.processes.kill()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future], timeout=0.05)
    if future.exception() is None:
        with suppress(asyncio.CancelledError):
            await future.result().shut_down()


@contextmanager
def _environment(log: EngineLog, wanted: Mapping[str, str]) -> Iterator[None]:
    """Set up the environment that the processes inherit, and put the old one back.

    vLLM itself changes more of it (``LD_PRELOAD`` for one), which would otherwise reach every
    program that the user starts later.
    """
    before = dict(os.environ)
    if "VLLM_LOGGING_LEVEL" not in os.environ:
        os.environ[LOG_VARIABLE] = log.path
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
