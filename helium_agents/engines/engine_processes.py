"""The processes that one start of an engine brings into being: found, killed, and watched over.

They carry a mark in their environment. `engine_watcher` ends them should this program be killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from multiprocessing import resource_tracker, spawn
from time import monotonic, sleep

from helium_agents.engines import engine_watcher
from helium_agents.engines.engine_watcher import MARKER, kill, marked, shared_memory
from helium_agents.errors import EngineStartError

_MOST_SECONDS = 5.0
"""A process that a kill does not end by then hangs in the kernel: it is not waited for."""
_SWEEP_S = 0.02


class EngineProcesses:
    """The processes of one start; at first there are none.

    Args:
        is_tracked: Whether multiprocessing tracks for this program what they share: if it is this
            program that starts the engine, and not a server that it starts.

    Attributes:
        environment: Variables that those must find in their environment that are to belong to it.
    """

    def __init__(self, *, is_tracked: bool = True) -> None:
        self._is_tracked = is_tracked
        self._mark = f"{os.getpid()}-{os.urandom(8).hex()}"
        self._session = os.getsid(0)
        self._watcher: subprocess.Popen[bytes] | None = None
        self._shared: frozenset[str] = frozenset()  # replaced, not changed: threads look at it
        self.environment = {
            MARKER: self._mark,
            "SPT_NOENV": "1",  # vLLM gives its processes titles, which else overwrite the mark
        }

    def watch(self) -> None:
        """See to it that they do not outlive this program. To be called before there are any."""
        arguments = [str(os.getpid()), str(self._session), self._mark]
        # It begins with this thread's mask: a signal may come before it has said what it ignores.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, engine_watcher.IGNORED)
        try:
            self._watcher = subprocess.Popen(
                [spawn.get_executable(), "-I", "-S", engine_watcher.__file__, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # out of reach of the terminal, and of a kill of the group
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def pids(self) -> list[int]:
        """Those that have not ended."""
        return marked(self._mark, self._session)

    def note_shared_memory(self) -> None:
        """Remember what they share, for when they are killed and cannot be looked at any more.

        Raises:
            EngineStartError: Nothing watches over them.
        """
        self._shared |= shared_memory(self.pids())
        watcher = self._watcher
        if watcher is None or watcher.stdin is None or watcher.poll() is not None:
            code = None if watcher is None else watcher.returncode
            raise EngineStartError(
                f"the process that watches over the engine's has ended (exit code {code})"
            )
        with watcher.stdin as file:
            file.write("".join(f"{path}\n" for path in self._shared).encode())

    def kill(self) -> bool:
        """Kill those that there are, and remove what they shared; whether there were any."""
        pids = self.pids()
        self._shared |= shared_memory(pids)
        kill(pids)
        for path in self._shared:
            with suppress(FileNotFoundError):
                os.unlink(path)
                if self._is_tracked:  # and would be reported as leaked when the program ends
                    name = os.path.basename(path)
                    kind = "semaphore" if name.startswith("sem.") else "shared_memory"
                    resource_tracker.unregister("/" + name.removeprefix("sem."), kind)
        return bool(pids)

    def end(self) -> None:
        """Kill until none is left, and stop watching. Idempotent."""
        deadline_s = monotonic() + _MOST_SECONDS
        while self.kill() and monotonic() < deadline_s:
            sleep(_SWEEP_S)
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.kill()
            watcher.wait()
            if watcher.stdin is not None:
                watcher.stdin.close()
