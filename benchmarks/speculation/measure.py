"""One run of a program in virtual time: how long each item took, and what it cost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import mean

from benchmarks.harness.statistics import percentile
from benchmarks.speculation.engine import ScriptEngine
from benchmarks.speculation.programs import Program, Workflow, item_text, words
from benchmarks.speculation.systems import System
from benchmarks.workloads.texts import seeded
from helium_agents import Session, llm, user
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.step_cost import STEP_COSTS

NUM_LEARNING = 8
"""So many items come first, and do not count: what is learned of them, all systems have."""

NUM_ITEMS = 24


@dataclass(frozen=True)
class Cell:
    """What is run.

    Args:
        program: Which program.
        cost: The name of a step's cost.
        usual: How often an unknown is as usual.
        num_open: Items that are open at once.
    """

    program: Program
    cost: str
    usual: float
    num_open: int


@dataclass(frozen=True)
class Run:
    """What came of it.

    Args:
        item_s: How long each item took, from when it was opened.
        others_s: How long each call took that came beside, where there were any.
        tokens: That the engine computed: prompts and answers.
        texts: What the items returned.
    """

    item_s: Sequence[float]
    others_s: Sequence[float]
    tokens: int
    texts: Sequence[str]

    def p(self, percent: float) -> float:
        """A percentile of the times of items."""
        return percentile(self.item_s, percent)

    @property
    def others_mean_s(self) -> float:
        """The mean time of calls beside."""
        return mean(self.others_s)


def run(cell: Cell, system: System, seed: int, others_per_s: float = 0.0) -> Run:
    """Run a cell in virtual time.

    Args:
        cell: What is run.
        system: How.
        seed: Of the items and of what the model says.
        others_per_s: Calls a second that come beside, in which there is nothing to guess.
    """
    return run_in_virtual_time(_run(cell, system, seed, others_per_s))


async def _run(cell: Cell, system: System, seed: int, others_per_s: float) -> Run:
    truth = cell.program.truth(seed, cell.usual)
    engine = ScriptEngine(STEP_COSTS[cell.cost], truth)
    await engine.start()
    workflow = cell.program.make(system.options(cell.program, truth))
    async with Session(engine, **system.session) as session:
        await _map(session, workflow, range(-NUM_LEARNING, 0), cell, seed)
        before, beside = engine.counts.prefill_tokens + engine.counts.requests, list[float]()
        others = asyncio.create_task(_others(session, others_per_s, seed, beside))
        found = await _map(session, workflow, range(NUM_ITEMS), cell, seed)
        others.cancel()
        await asyncio.wait([others])
        tokens = engine.counts.prefill_tokens + engine.counts.requests - before
    item_s, texts = zip(*found, strict=True)
    return Run(item_s, beside, tokens, texts)


async def _map(
    session: Session, workflow: Workflow, numbers: Iterable[int], cell: Cell, seed: int
) -> list[tuple[float, str]]:
    """How long each item took, so many at once, and what it returned."""
    clock, open_ = asyncio.get_running_loop().time, asyncio.Semaphore(cell.num_open)

    async def work(number: int) -> tuple[float, str]:
        async with open_:
            began_s = clock()
            text = await workflow(item_text(seed, number))
            return clock() - began_s, text

    return [each async for each in session.map(work, numbers)]


async def _others(session: Session, per_s: float, seed: int, took_s: list[float]) -> None:
    """Calls that come beside, for as long as this is not cancelled."""
    if not per_s:
        return
    clock, draws = asyncio.get_running_loop().time, seeded("others", seed)

    async def call(number: int) -> None:
        began_s = clock()
        await llm(user(f"other {seed} {number}: {words(100, 'other', seed, number)}"))
        took_s.append(clock() - began_s)

    async with asyncio.TaskGroup() as group:
        for number in count():
            await asyncio.sleep(draws.expovariate(per_s))
            group.create_task(call(number))
