"""Starts vLLM's processes and ends them, so that none is left whoever fails, cancels or is killed.

Starting takes 15 to 30 s: imports, then an engine core process, then a worker process. All of it
runs in a thread of its own, so the event loop stays free but for imports that hold the interpreter
(0.6 s at most were seen). Three facts shape the code:

- A spawned process runs the user's script again under another name. A script that starts the
  engine without a ``__main__`` guard would start another one in there; that child ends with an
  exit code of its own, by which the parent knows what to say.
- A thread cannot be cancelled. Before processes are started it is told to stop by a flag; after
  that its processes are killed, which makes it fail at once.
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
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helium_agents.engines.engine_log import LOG_VARIABLE, EngineLog
from helium_agents.engines.vllm_plugin import MARKER
from helium_agents.errors import EngineDied, EngineStartError

if TYPE_CHECKING:
    from psutil import Process  # type: ignore[import-untyped]  # comes with vLLM
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

_CORE_NAME = "EngineCore"
"""How the names of the processes that vLLM starts from this one begin."""

_SHARED = Path("/dev/shm")
_SHARED_PREFIXES = ("psm_", "sem.mp-")
"""How multiprocessing names shared memory and semaphores there."""

_ONE_START_AT_A_TIME = threading.Lock()
"""The environment is one for the whole process, so it can serve one start only."""


@dataclass
class Launched:
    """An engine that runs.

    Args:
        llm: Where requests go in.
        shared_memory: Files by which its processes exchange data. Killed ones leave them behind.
        log: What its processes said.
        is_ending: Whether its processes were told to end, and not by us.
    """

    llm: AsyncLLM
    shared_memory: frozenset[Path]
    log: EngineLog
    is_ending: bool = False

    @property
    def is_dead(self) -> bool:
        """Whether it takes no requests any more."""
        return self.is_ending or bool(self.llm.errored)

    def died(self) -> EngineDied:
        """What to raise where a request finds it dead."""
        cause = self.log.cause()
        return EngineDied(
            f"vLLM's engine process is gone: {cause or 'it was killed or closed'}",
            was_killed=cause is None,
        )

    async def shut_down(self) -> None:
        """End the engine and its processes; requests that are still open fail."""
        from vllm.v1.engine.exceptions import EngineDeadError

        llm = self.llm
        llm.output_processor.propagate_error(EngineDeadError())
        handler = llm.output_handler
        if handler is not None:
            # First of all, or it reports the end of its queue as an error with a stack trace.
            handler.cancel()
        # Shielded: a cancellation must not keep a thread from stopping it that has yet to begin.
        stopped = asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._stop))
        reader = llm.engine_core.resources.output_queue_task
        # vLLM closes its sockets by a callback in this loop, which must run before the loop ends.
        await asyncio.gather(*filter(None, (stopped, handler)), return_exceptions=True)
        if reader is not None:
            await asyncio.gather(reader, return_exceptions=True)

    def _stop(self) -> None:
        self.llm.shutdown()
        # Its finalizer shuts down once more, and at the interpreter's end complains that it can't.
        self.llm.shutdown = lambda timeout=None: None
        _unlink(self.shared_memory)
        self.log.close()


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
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _undo(start, future)
        raise
    except Exception as error:
        explained = _explained(error, start.log)
        start.log.close()
        raise explained from error


def _check_can_start() -> None:
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # This process is being made by multiprocessing and is importing the user's script.
        if MARKER in os.environ:
            os._exit(_UNGUARDED_MAIN)
        raise EngineStartError(_unguarded_message())
    if importlib.util.find_spec("vllm") is None:
        raise EngineStartError(
            "vLLM is not installed. On a machine with a GPU: pip install 'helium_agents[vllm]'; "
            "without one: pip install --no-deps -r requirements/cpu.txt"
        )


def _main_looks_unguarded() -> bool:
    """Whether the user's script never asks for its name, which a guard does."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return path is not None and "__name__" not in Path(path).read_text("utf-8", "replace")
    except OSError:
        return False


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
    return EngineStartError(f"vLLM did not start: {text or type(error).__name__}")


def _is_no_obituary(record: logging.LogRecord) -> bool:
    """Whether to print what vLLM logs in this process; a death is told by `EngineDied`."""
    return "output_handler failed" not in record.getMessage()


class _Abandoned(Exception):
    """Nobody waits for this start any more."""


class _Start:
    """One start of an engine, in a thread."""

    def __init__(self, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._arguments = arguments
        self._environment = environment
        self.log = EngineLog()
        self._lock = threading.Lock()
        self._is_abandoned = False
        self._has_processes = False
        self._older_children: set[int | None] = set()

    def run(self) -> Launched:
        """Import vLLM, configure it, start its processes, and wait until they are ready."""
        with _ONE_START_AT_A_TIME, _environment(self.log, self._environment):
            # The tracker, which the processes share, would unblock the signal if it started later.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            # What vLLM's own modules do with torch's is not the user's to repair.
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.")
            if _main_looks_unguarded():
                self._try_to_spawn()
            for module in ("torch", "vllm", "vllm.v1.engine.async_llm"):
                self._check_wanted()
                importlib.import_module(module)
            if LOG_VARIABLE in os.environ:
                logging.getLogger("vllm.v1.engine.async_llm").addFilter(_is_no_obituary)
            llm = self._start_processes()
            return Launched(llm, _shared_memory(self._processes()), self.log)

    def _start_processes(self) -> AsyncLLM:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        engine_args = AsyncEngineArgs(**self._arguments)
        config = engine_args.create_engine_config()
        self._set_has_processes(True)
        return AsyncLLM.from_vllm_config(config, disable_log_stats=engine_args.disable_log_stats)

    def _try_to_spawn(self) -> None:
        """Find out at once, not after the imports, that the script has no guard."""
        process = multiprocessing.get_context("spawn").Process(
            target=os.getpid, name=f"{_CORE_NAME}Trial"
        )
        self._set_has_processes(True)
        process.start()
        process.join()
        self._set_has_processes(False)
        if process.exitcode == _UNGUARDED_MAIN:
            raise EngineStartError(_unguarded_message())

    def _set_has_processes(self, has_processes: bool) -> None:
        with self._lock:
            self._check_wanted()
            self._older_children = {child.pid for child in multiprocessing.active_children()}
            self._has_processes = has_processes

    def _check_wanted(self) -> None:
        if self._is_abandoned:
            raise _Abandoned

    def _processes(self) -> list[Process]:
        """The engine core and what it has started."""
        import psutil

        processes = []
        for child in multiprocessing.active_children():
            if child.pid not in self._older_children and child.name.startswith(_CORE_NAME):
                with suppress(psutil.NoSuchProcess):
                    core = psutil.Process(child.pid)
                    processes += [core, *core.children(recursive=True)]
        return processes

    def abandon(self) -> bool:
        """Ask `run` to stop; whether its processes must be killed for that."""
        with self._lock:
            self._is_abandoned = True
            return self._has_processes

    def kill_processes(self) -> None:
        """Kill what `run` has started so far, and remove the memory that it shared."""
        import psutil

        processes = self._processes()
        shared_memory = _shared_memory(processes)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _unlink(shared_memory)


async def _undo(start: _Start, future: asyncio.Future[Launched]) -> None:
    """Leave nothing of a start that was cancelled; a second cancellation does not stop this."""
    if not start.abandon():  # it has started nothing and will not; nobody asks why
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return
    while not future.done():
        start.kill_processes()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future], timeout=0.05)
    if future.exception() is None:
        with suppress(asyncio.CancelledError):
            await future.result().shut_down()


def _shared_memory(processes: Iterable[Process]) -> frozenset[Path]:
    """Files of shared memory and semaphores that multiprocessing made for these processes.

    They are told by their inodes: who makes a semaphore has mapped it under another name.
    """
    inodes = set()
    for process in processes:
        with suppress(OSError):
            maps = Path(f"/proc/{process.pid}/maps").read_text("utf-8", "replace")
            inodes |= {int(line.split()[4]) for line in maps.splitlines() if str(_SHARED) in line}
    if not inodes:
        return frozenset()
    with os.scandir(_SHARED) as entries:
        return frozenset(
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(_SHARED_PREFIXES) and entry.inode() in inodes
        )


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()
            kind = "semaphore" if path.name.startswith("sem.") else "shared_memory"
            # Or multiprocessing would report it as leaked when the program ends.
            resource_tracker.unregister("/" + path.name.removeprefix("sem."), kind)


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
    os.environ[MARKER] = "1"
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
