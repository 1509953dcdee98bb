"""Runs inside vLLM's own processes, which vLLM offers no other way to adjust from within.

vLLM calls `register` in every process it starts (entry point group ``vllm.general_plugins``); it
acts only where `MARKER` says that the engine is ours.

On a CPU the engine core and its workers wait for each other asleep, where these are processes of
their own. vLLM has them call ``sched_yield`` without end, which takes as much CPU time as
computing; on two cores under Linux 6.18 a third process, a client over HTTP, was seen to get none
for seconds.
"""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import os
import time

from helium_agents.engines.engine_log import redirect_output
from helium_agents.engines.engine_watcher import MARKER

_POLL_S = 1e-4
"""What a step of the engine may come later; one of the smallest model takes fifty times as long."""


def register() -> None:
    """If this process is of our engine: have it log to our file, wait asleep, and end at once."""
    if MARKER not in os.environ or multiprocessing.parent_process() is None:
        return
    redirect_output()
    # A process that crashes says so, and one that says nothing was killed from outside.
    faulthandler.enable(2)
    # After its clean-up a process spends two seconds on taking torch's modules apart, the worker
    # first and then the engine core; this, run after the exit handlers of all that is imported
    # from here on, makes closing an engine take half a second in place of four.
    atexit.register(os._exit, 0)
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _wait_asleep()


def _wait_asleep() -> None:
    from vllm.distributed.device_communicators import shm_broadcast

    shm_broadcast.sched_yield = lambda: time.sleep(_POLL_S)
