"""One run of a program in virtual time: how long each item took, and what it cost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from statistics import mean

from benchmarks.harness.statistics import percentile
from benchmarks.speculation.engine import Said, ScriptEngine
from benchmarks.speculation.programs import Program, Workflow, item_text, words
from benchmarks.speculation.systems import System
from benchmarks.workloads.texts import seeded
from helium_agents import Session, llm, user
from helium_agents.engines.engine import ChatMessage
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


@dataclass(frozen=True)
class Arrivals:
    """Items that come by the clock, and not when others end.

    Were they opened when others end, a system that is faster would have more of them in the same
    time, and whoever wins nothing by guesses would wait for those.

    Args:
        item_s: From one item to the next.
        others_per_s: Calls that come beside, in which there is nothing to guess.
    """

    item_s: float
    others_per_s: float = 0.0


def run(cell: Cell, system: System, seed: int, arrivals: Arrivals | None = None) -> Run:
    """Run a cell in virtual time.

    Args:
        cell: What is run.
        system: How.
        seed: Of the items and of what the model says.
        arrivals: When items come; by default each when another has ended.
    """
    return run_in_virtual_time(_run(cell, system, seed, arrivals))


async def _run(cell: Cell, system: System, seed: int, arrivals: Arrivals | None) -> Run:
    truth = cell.program.truth(seed, cell.usual)
    engine = ScriptEngine(STEP_COSTS[cell.cost], lambda chat: _says_beside(chat) or truth(chat))
    await engine.start()
    workflow = cell.program.make(system.options(cell.program, truth))
    async with Session(engine, **system.session) as session:
        await _map(session, workflow, range(-NUM_LEARNING, 0), cell, seed)
        before, beside = engine.counts.prefill_tokens + engine.counts.requests, list[float]()
        if arrivals is None:
            found = await _map(session, workflow, range(NUM_ITEMS), cell, seed)
        else:
            others = asyncio.create_task(_others(arrivals, seed, beside))
            found = await _map(session, workflow, range(NUM_ITEMS), cell, seed, arrivals.item_s)
            await others
        tokens = engine.counts.prefill_tokens + engine.counts.requests - before
    item_s, texts = zip(*found, strict=True)
    return Run(item_s, beside, tokens, texts)


async def _map(
    session: Session,
    workflow: Workflow,
    numbers: Sequence[int],
    cell: Cell,
    seed: int,
    item_s: float | None = None,
) -> list[tuple[float, str]]:
    """How long each item took, and what it returned; so many at once, or each by the clock."""
    clock = asyncio.get_running_loop().time
    open_ = asyncio.Semaphore(cell.num_open if item_s is None else len(numbers))

    async def work(number: int) -> tuple[float, str]:
        if item_s is not None:
            await asyncio.sleep(item_s * (number - numbers[0]))
        async with open_:
            began_s = clock()
            text = await workflow(item_text(seed, number))
            return clock() - began_s, text

    return [each async for each in session.map(work, numbers)]


async def _others(arrivals: Arrivals, seed: int, took_s: list[float]) -> None:
    """Calls that come beside for as long as items come: the same of each system."""
    if not arrivals.others_per_s:
        return
    clock, draws = asyncio.get_running_loop().time, seeded("others", seed)
    end_s = clock() + NUM_ITEMS * arrivals.item_s

    async def call(number: int) -> None:
        began_s = clock()
        await llm(user(f"{_BESIDE} {number}: {words(20, 'other', seed, number)}"))
        took_s.append(clock() - began_s)

    async with asyncio.TaskGroup() as group:
        for number in count():
            await asyncio.sleep(draws.expovariate(arrivals.others_per_s))
            if clock() >= end_s:
                return
            group.create_task(call(number))


_BESIDE = "call beside"


def _says_beside(messages: Sequence[ChatMessage]) -> Said | None:
    """A short answer to a call beside."""
    return Said("one two three four five") if messages[0].content.startswith(_BESIDE) else None
