"""The processes of an engine, played by others: they end with their program, and by its will."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest

from helium_agents.engines.engine_processes import EngineProcesses
from helium_agents.engines.engine_watcher import shared_memory
from helium_agents.errors import EngineStartError

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]

PROGRAM = f"""
import os, subprocess, sys, time
from multiprocessing.shared_memory import SharedMemory

from helium_agents.engines.engine_processes import EngineProcesses

processes = EngineProcesses()
processes.watch()
os.environ.update(processes.environment)
shared = SharedMemory(create=True, size=32)
mapped = "from multiprocessing.shared_memory import SharedMemory as S; s = S(sys.argv[1]); "
mapped = "import sys, time; " + mapped + "print(flush=True); time.sleep(60)"
one = subprocess.Popen([sys.executable, "-c", mapped, shared.name], stdout=subprocess.PIPE)
one.stdout.readline()
other = subprocess.Popen({SLEEP!r}, start_new_session=True)
processes.note_shared_memory()
print(one.pid, other.pid, processes._watcher.pid, "/dev/shm/" + shared.name, flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_until_gone(*pids: int) -> None:
    deadline_s = time.monotonic() + 60
    while alive := list(filter(is_running, pids)):
        assert time.monotonic() < deadline_s, alive
        time.sleep(0.01)


def test_the_watcher_takes_no_signal_from_its_first_moment() -> None:
    processes = EngineProcesses()
    processes.watch()
    watcher = processes._watcher
    assert watcher is not None
    try:
        watcher.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            watcher.wait(1)
    finally:
        processes.end()


@pytest.mark.parametrize("with_group", [False, True])
def test_they_end_with_the_program(with_group: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        one, other, watcher, path = program.stdout.readline().split()
        assert all(map(is_running, map(int, (one, other, watcher)))) and os.path.exists(path)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(int(watcher), number)  # it does not take these
        time.sleep(0.1)
        assert is_running(int(watcher))
        if with_group:
            os.killpg(program.pid, signal.SIGKILL)
        else:
            program.kill()
    try:
        wait_until_gone(int(one), int(watcher))
        assert is_running(int(other))  # which has left, to live on
        assert not os.path.exists(path)
    finally:
        os.kill(int(other), signal.SIGKILL)


@contextmanager
def started(environment: dict[str, str], command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, env=os.environ | environment) as process:
        try:
            environ = Path(f"/proc/{process.pid}/environ")  # empty at the very beginning
            while process.poll() is None and not environ.read_bytes():
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def test_their_program_ends_them_and_no_others() -> None:
    ours, others = EngineProcesses(), EngineProcesses()
    ours.watch()
    with started(ours.environment, SLEEP) as one, started(others.environment, SLEEP) as other:
        assert (ours.pids(), others.pids()) == ([one.pid], [other.pid])
        ours.note_shared_memory()
        watcher = ours._watcher
        assert watcher is not None and watcher.poll() is None
        ours.end()
        assert one.wait() == watcher.returncode == -signal.SIGKILL
        assert (ours.pids(), others.pids(), other.poll()) == ([], [other.pid], None)
        ours.end()


def test_what_they_share_is_removed_and_nothing_else() -> None:
    processes = EngineProcesses()
    theirs, not_theirs = (SharedMemory(create=True, size=32) for _ in range(2))
    mapped = f"import time; from multiprocessing.shared_memory import SharedMemory; \
        s = SharedMemory({theirs.name!r}); print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", mapped], env=os.environ | processes.environment, stdout=-1
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert shared_memory([process.pid]) == {f"/dev/shm/{theirs.name}"}
        processes.end()
    assert not os.path.exists(f"/dev/shm/{theirs.name}")
    assert os.path.exists(f"/dev/shm/{not_theirs.name}")
    theirs.close()
    not_theirs.close()
    not_theirs.unlink()


def test_a_watcher_that_is_gone_is_missed() -> None:
    processes = EngineProcesses()
    processes.watch()
    watcher = processes._watcher
    assert watcher is not None
    watcher.kill()
    watcher.wait()
    with pytest.raises(EngineStartError, match=r"watches over .* has ended \(exit code -9\)"):
        processes.note_shared_memory()
    processes.end()


def test_what_a_servers_engine_shares_is_removed_without_a_word() -> None:
    """It is the server's tracker that knows of it; to tell ours would be an error there."""
    program = """
import os, subprocess, sys

from helium_agents.engines.engine_processes import EngineProcesses

processes = EngineProcesses(is_tracked=False)
processes.watch()
shares = "import time; from multiprocessing.shared_memory import SharedMemory as S; " \
    "s = S(create=True, size=32); print(s.name, flush=True); time.sleep(60)"
server = subprocess.Popen(
    [sys.executable, "-c", shares], env=os.environ | processes.environment, stdout=-1, text=True
)
path = "/dev/shm/" + server.stdout.readline().strip()
processes.note_shared_memory()
assert os.path.exists(path)
processes.end()
assert not os.path.exists(path)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
