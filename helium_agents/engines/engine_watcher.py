"""Waits for a program's end, and then ends what is left of an engine that it had started.

Without this the engine core and its workers outlive a killed program, keep computing, and keep
their memory; one that was killed while its engine started leaves a core that waits minutes for an
answer. `EngineProcesses` runs this file as a process of its own, which imports nothing of ours:

    python -I -S engine_watcher.py PROGRAM_PID SESSION MARK

Why a process: a thread inside the engine's processes would begin only once vLLM loads plug-ins, 10
seconds after their start, and needs the interpreter's lock to act. Why not ``PR_SET_PDEATHSIG``:
the kernel sends that signal when the *thread* that forked ends, and an engine is started by a
thread that ends as soon as it is up.

The engine's processes are known by a mark in their environment, which they inherit from each
other, so none is missed that was started a moment before. Other programs that the user's starts
meanwhile inherit the mark too: those that have left the terminal session, to live on, are spared.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

MARKER = "HELIUM_AGENTS_ENGINE"
"""Environment variable that carries the mark: one value for each start of an engine."""

IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""Signals that the watcher does not take."""

_SHARED = "/dev/shm"
_SHARED_PREFIXES = ("psm_", "sem.mp-")
"""How multiprocessing names shared memory and semaphores there."""

_POLL_S = 0.2
_SWEEP_S = 0.02
_QUIET_S = 0.5
"""A process that was being made when the program ended is seen within this time."""


def marked(mark: str, session: int) -> list[int]:
    """Processes of a session that carry a mark; those that have ended do not."""
    variable = f"{MARKER}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        try:
            # First the session: a look into the memory of a process waits while that is busy.
            if name.isdigit() and os.getsid(int(name)) == session:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if variable in file.read().split(b"\0"):
                        found.append(int(name))
        except OSError:  # it has just ended, or is another user's
            continue
    return found


def kill(pids: Iterable[int]) -> None:
    """Kill those that have not ended by themselves."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def shared_memory(pids: Iterable[int]) -> set[str]:
    """Files of shared memory and semaphores that multiprocessing made for these processes.

    They are told by their inodes: who makes a semaphore has mapped it under another name.
    """
    inodes = set()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/maps", "rb") as file:
                inodes |= {int(line.split()[4]) for line in file if _SHARED.encode() in line}
        except OSError:  # it has just ended
            continue
    if not inodes:
        return set()
    with os.scandir(_SHARED) as entries:
        return {
            entry.path
            for entry in entries
            if entry.name.startswith(_SHARED_PREFIXES) and entry.inode() in inodes
        }


def sweep(mark: str, session: int) -> set[str]:
    """Kill what carries the mark until none is left; the shared memory that it had."""
    shared: set[str] = set()
    quiet_since_s = time.monotonic()
    while time.monotonic() - quiet_since_s < _QUIET_S:
        pids = marked(mark, session)
        if pids:
            shared |= shared_memory(pids)
            kill(pids)
            quiet_since_s = time.monotonic()
        time.sleep(_SWEEP_S)
    return shared


def noted() -> set[str]:
    """What the program wrote to the standard input; a child of it may still hold the other end."""
    os.set_blocking(0, False)
    try:
        return set(os.read(0, 1 << 16).decode().splitlines())
    except BlockingIOError:
        return set()


def main() -> None:
    """Watch, and clean up. The standard input names files to remove besides."""
    parent_pid, session, mark = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)  # it ends when the program does, however that ends
    while os.getppid() == parent_pid:
        time.sleep(_POLL_S)
    for path in sweep(mark, session) | noted():
        with suppress(FileNotFoundError):  # multiprocessing's own tracker was faster
            os.unlink(path)


if __name__ == "__main__":
    main()
