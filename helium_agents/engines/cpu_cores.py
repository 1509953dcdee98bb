"""How vLLM uses the cores of a CPU, where it is ours to say.

vLLM computes in a worker process of its own and leaves a core idle for the engine core, which
tells the worker what to do: of two cores one. Where there are few, all of them compute here; and
with a single worker they do so in the engine core itself, as vLLM has it with a single GPU. On two
cores an engine then starts in 12 s in place of 17, takes 0.75 GB in place of 1.3, and a small
model's steps take two thirds of the time.

Threads that wait for each other soon do that asleep: a run beside a program that took a core took
20 s with the shortest waits that were tried, and 32 s with threads that wait as OpenMP has them.
"""

from __future__ import annotations

import os

_FEW_CORES = 4
"""With more, a core less is lost than threads lose that the system moves from one to another."""

_BINDING, _SPINS = "VLLM_CPU_OMP_THREADS_BIND", "GOMP_SPINCOUNT"
CORE_VARIABLES = (_BINDING, "VLLM_CPU_NUM_OF_RESERVED_CPU", "OMP_NUM_THREADS")
"""Environment variables by which users decide which cores compute."""
_WAIT_VARIABLES = (_SPINS, "OMP_WAIT_POLICY")
"""And those by which they decide how threads wait for each other."""

NUM_SPINS = 5000
"""How often a thread looks before it sleeps: for a fraction of a millisecond.

That is longer than a thread waits between two operators of a model, and shorter than another
program holds a core. With 1,000 looks steps were slower on a quiet machine; with OpenMP's 300,000
threads hold cores that others could use, and wait for those that others hold.
"""

IN_ENGINE_CORE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""vLLM's executor that computes in the engine core, as its ``distributed_executor_backend``.

Under its short name, ``"uni"``, vLLM refuses it on a CPU, since it tells a worker's threads which
cores are theirs by the environment that the worker is started with. Where all cores compute there
is nothing to tell.
"""


def computes_on_all_cores() -> bool:
    """Whether an engine of ours computes on all cores of a CPU, since nobody says otherwise."""
    is_said = any(name in os.environ for name in CORE_VARIABLES)
    return not is_said and len(os.sched_getaffinity(0)) <= _FEW_CORES


def core_environment() -> dict[str, str]:
    """Environment variables of an engine's processes on a CPU; none where users or vLLM decide.

    OpenMP reads them once, when it is loaded, so a process must be started with them.
    """
    if not computes_on_all_cores():
        return {}
    is_said = any(name in os.environ for name in _WAIT_VARIABLES)
    return {_BINDING: "nobind"} | ({} if is_said else {_SPINS: str(NUM_SPINS)})
