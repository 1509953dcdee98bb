"""Runs inside vLLM's own processes, which vLLM offers no other way to adjust from within.

vLLM calls `register` in every process it starts (entry point group ``vllm.general_plugins``); it
acts only where `MARKER` says that the engine is ours.

On a CPU the engine core and its workers wait for each other asleep. vLLM has them call
``sched_yield`` without end, which takes as much CPU time as computing; on two cores under Linux
6.18 a third process, a client over HTTP, was seen to get none for seconds.

So the engine core needs no core of its own, for which vLLM leaves one idle: of two cores one. Where
there are few, all of them compute. Threads that wait for each other soon do that asleep, too: a run
beside a program that took a core took 20 s with the shortest waits that were tried, and 32 s with
threads that wait as OpenMP has them.
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

_FEW_CORES = 4
"""With more, a core less is lost than threads lose that the system moves from one to another."""

_BINDING, _SPINS = "VLLM_CPU_OMP_THREADS_BIND", "GOMP_SPINCOUNT"
CORE_VARIABLES = (_BINDING, "VLLM_CPU_NUM_OF_RESERVED_CPU", "OMP_NUM_THREADS")
"""By these users decide which cores compute."""
_WAIT_VARIABLES = (_SPINS, "OMP_WAIT_POLICY")
"""And by these how threads wait for each other."""

_NUM_SPINS = 5000
"""How often a thread looks before it sleeps: for a fraction of a millisecond.

That is longer than a thread waits between two operators of a model, and shorter than another
program holds a core. With 1,000 looks steps were slower on a quiet machine; with OpenMP's 300,000
threads hold cores that others could use, and wait for those that others hold.
"""


def register() -> None:
    """If this process is of our engine: have it log to our file, wait asleep, and end at once.

    Of few CPU cores all compute for it.
    """
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
        if computes_on_all_cores():
            _compute_on_all_cores()


def computes_on_all_cores() -> bool:
    """Whether an engine of ours computes on all cores of a CPU, since nobody says otherwise."""
    is_said = any(name in os.environ for name in CORE_VARIABLES)
    return not is_said and len(os.sched_getaffinity(0)) <= _FEW_CORES


def _wait_asleep() -> None:
    from vllm.distributed.device_communicators import shm_broadcast

    shm_broadcast.sched_yield = lambda: time.sleep(_POLL_S)


def _compute_on_all_cores() -> None:
    """Said in the engine core to the workers that it starts."""
    os.environ[_BINDING] = "nobind"
    if not any(name in os.environ for name in _WAIT_VARIABLES):
        os.environ[_SPINS] = str(_NUM_SPINS)
