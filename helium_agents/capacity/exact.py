"""The exact simulation: the session's own dispatcher and schedule over vLLM's scheduler.

All of it runs in virtual time, so that a run of hours takes seconds or minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from helium_agents.capacity.machine import Machine
from helium_agents.capacity.outcome import Outcome, outcome_of
from helium_agents.capacity.replayed import Replay
from helium_agents.engines.replicas import Replicas
from helium_agents.engines.simulated.tokens import TokenEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.errors import RequestError, TraceError
from helium_agents.optimizer.schedule import Schedule
from helium_agents.runtime.session import Session

_MOST_VIRTUAL_S = 1e9
"""Who still waits then waits for ever."""

_MANY_KV_TOKENS = 2_000_000
"""vLLM has an object for each block, and so many tokens' are made in seconds."""


def simulate_exactly(
    replay: Replay, machines: Mapping[str, Machine], schedule: Schedule
) -> Outcome:
    """How long a traced run would take.

    Raises:
        EngineStartError: vLLM is not installed, or is one whose scheduler cannot be driven.
        TraceError: A request does not fit into its engine.
    """
    return run_in_virtual_time(_simulate(replay, machines, schedule))


async def _simulate(replay: Replay, machines: Mapping[str, Machine], schedule: Schedule) -> Outcome:
    engines = {
        model: [_engine(machine, model, replay) for _ in range(machine.num_engines)]
        for model, machine in machines.items()
    }
    every = [engine for each in engines.values() for engine in each]
    clock = asyncio.get_running_loop().time
    async with AsyncExitStack() as stack:
        for engine in every:
            await engine.start()
            stack.push_async_callback(engine.close)
        replicas = {model: Replicas(each) for model, each in engines.items()}
        async with Session(replicas, schedule=schedule) as session:
            start_s = clock()
            try:
                async with asyncio.timeout(_MOST_VIRTUAL_S):
                    seconds = await replay.run(session)
            except ExceptionGroup as errors:
                first = _first(errors)
                if isinstance(first, RequestError):
                    raise TraceError(f"the run does not fit: {first}") from errors
                raise
            except TimeoutError:
                raise TraceError(f"the simulation stands still:\n{session.waiting()}") from None
            return outcome_of(
                clock() - start_s,
                seconds,
                steps=sum(engine.counts.steps for engine in every),
                prefill_tokens=sum(engine.counts.prefill_tokens for engine in every),
            )


def _engine(machine: Machine, model: str, replay: Replay) -> TokenEngine:
    # What is more than all calls together would ever fill makes no difference.
    most_tokens = max(_MANY_KV_TOKENS, replay.most_kv_tokens(machine.held.block_tokens))
    held = replace(machine.held, kv_tokens=min(machine.held.kv_tokens, most_tokens))
    return TokenEngine(machine.cost, held, partial(replay.answer, model), name=model)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
