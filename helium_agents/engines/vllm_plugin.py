"""Runs inside vLLM's own processes, and ends them when the process that made them is gone.

Without this the engine core and its workers outlive a killed parent, keep computing, and keep
their memory. vLLM calls `register` in every process it starts (entry point group
``vllm.general_plugins``); it acts only where `MARKER` says that the engine is ours.

Why not ``PR_SET_PDEATHSIG``: the kernel sends that signal when the *thread* that forked ends, and
`VLLM.start` forks from a thread that ends as soon as the engine is up. A process descriptor of the
parent becomes readable when the whole process is gone, so a thread waits for that.
"""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import os
import select
import signal
import threading
import time

from helium_agents.engines.engine_log import redirect_output

MARKER = "HELIUM_AGENTS_ENGINE"
"""Environment variable that `VLLM.start` sets for the processes it starts."""

_POLL_S = 0.5


def register() -> None:
    """Tie this process to its parent, if it is a child process of an engine of ours."""
    parent = multiprocessing.parent_process()
    if MARKER not in os.environ or parent is None or parent.pid is None:
        return
    name = f"watch-parent-{parent.pid}"
    if any(thread.name == name for thread in threading.enumerate()):
        return  # vLLM may load plugins more than once
    redirect_output()
    # A process that crashes says so, and one that says nothing was killed from outside.
    faulthandler.enable(2)
    # After its clean-up a process spends two seconds on taking torch's modules apart, the worker
    # first and then the engine core; this, run after the exit handlers of all that is imported
    # from here on, makes closing an engine take half a second in place of four.
    atexit.register(os._exit, 0)
    threading.Thread(target=_die_with, args=(parent.pid,), name=name, daemon=True).start()


def _die_with(parent_pid: int) -> None:
    _wait_for_end(parent_pid)
    # Not sys.exit, which only ends this thread, nor SIGTERM, which vLLM answers by finishing.
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_end(parent_pid: int) -> None:
    try:
        descriptor = os.pidfd_open(parent_pid)
    except (AttributeError, OSError):  # no such system call, not allowed, or already gone
        while os.getppid() == parent_pid:
            time.sleep(_POLL_S)
        return
    if os.getppid() == parent_pid:  # else it ended before, and the number may be another's by now
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
    os.close(descriptor)
