"""`python -m benchmarks.random_rows`: rows drawn at random, on engines drawn at random.

Two to four agents answer about a document and read each other for two or three rounds; each of them
asks one of the models, which has an engine of its own. Rows declare their calls or await each
round, and may pause after it, as one does that calls a tool; or they declare all and then await one
call after the other. All is in virtual time on vLLM's own
scheduler: no noise, and nothing that is slower than everything open is an accident.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.tool_loops import BLOCK_TOKENS, random_cost
from benchmarks.workloads.conversation import Answer
from helium_agents import (
    Message,
    Ref,
    Reply,
    Session,
    assistant,
    gather,
    llm,
    operator,
    prompt,
    system,
    user,
)
from helium_agents.engines.engine import Capacity
from helium_agents.engines.simulated.tokens import TokenEngine, token_text
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.memo.memory import MemoryStore
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.schedule import EverythingOpen, Schedule
from helium_agents.optimizer.step_cost import StepCost

_LEAST_KV_TOKENS, _MAX_REQUESTS = 3008, 64


@dataclass(frozen=True)
class Agent:
    """An agent of a row.

    Args:
        instructions: Its system prompt.
        model: What it asks.
    """

    instructions: str
    model: str


@dataclass(frozen=True)
class Row:
    """A document that agents talk about.

    Args:
        document: The text.
        agents: Who talks.
        answer_tokens: Of each answer.
        is_declared: Whether all calls are made before any is awaited.
        is_one_by_one: Whether a call is asked only when the one before is answered.
        pauses_s: What passes after each round but for the last.
    """

    document: str
    agents: tuple[Agent, ...]
    answer_tokens: int
    is_declared: bool
    is_one_by_one: bool
    pauses_s: tuple[float, ...]


@operator
async def talk(row: Row) -> list[str]:
    """The agents' last answers."""
    made: list[Ref[Reply[None]]] = []
    chats: list[tuple[Message, ...]]
    chats = [(system(agent.instructions), user(row.document)) for agent in row.agents]
    for number in range(len(row.pauses_s) + 1):
        calls = [
            llm(*chat, max_tokens=row.answer_tokens, model=agent.model)
            for chat, agent in zip(chats, row.agents, strict=True)
        ]
        made += calls
        if number == len(row.pauses_s):
            break
        said: Sequence[Answer | str] = calls
        if not row.is_declared:
            said = [reply.text for reply in await gather(*calls)]
        if row.pauses_s[number]:
            await asyncio.sleep(row.pauses_s[number])
        named = {f"said{index}": each for index, each in enumerate(said)}
        heard = user(prompt(" ".join(f"{{{name}}}" for name in named), **named))
        chats = [(*chat, assistant(each), heard) for chat, each in zip(chats, said, strict=True)]
    if row.is_one_by_one:
        for call in made:
            await call
    return [reply.text for reply in await gather(*calls)]


@dataclass(frozen=True)
class Cell:
    """Rows, and what they run on.

    Args:
        rows: The rows of a first run.
        others: Those of a second one.
        costs: Of a step, by model.
        kv_tokens: What each model's engine holds.
    """

    rows: Sequence[Row]
    others: Sequence[Row]
    costs: Mapping[str, StepCost]
    kv_tokens: Mapping[str, int]

    def __str__(self) -> str:
        row = self.rows[0]
        asked = ", ".join(
            f"{model} {sum(agent.model == model for agent in row.agents)} agents "
            f"(KV {self.kv_tokens[model]}, step {cost.step_s * 1e3:.1f} ms, "
            f"prompt token {cost.prefill_s * 1e6:.0f} us)"
            for model, cost in self.costs.items()
        )
        how = "declared" if row.is_declared else "awaited"
        how += ", one by one" if row.is_one_by_one else ""
        return f"{len(self.rows)} rows, {how}, {len(row.pauses_s) + 1} rounds, {asked}"


def random_cell(
    number: int, num_models: int = 1, *, has_pauses: bool = False, is_one_by_one: bool = False
) -> Cell:
    """The cell of a number.

    Args:
        number: Seeds the draw.
        num_models: How many models there are; each has an engine.
        has_pauses: Whether rows pause between rounds.
        is_one_by_one: Whether all rows declare their calls and then await one after the other.
    """
    rng = random.Random(number)

    def text(num_tokens: int) -> str:
        return token_text(rng.randrange(10_000, 60_000) for _ in range(num_tokens))

    models = [f"model-{index}" for index in range(num_models)]
    agents = tuple(
        Agent(text(rng.choice((32, 128, 400))), rng.choice(models))
        for _ in range(rng.choice((2, 3, 4)))
    )
    num_rows, num_pauses = rng.choice((24, 40)), rng.choice((1, 2))
    document_tokens, answer_tokens = rng.choice((64, 256, 600)), rng.choice((16, 32, 64))
    is_declared = not has_pauses and (rng.random() < 0.6 or is_one_by_one)
    pause_s = 0.05 * math.exp(rng.random() * math.log(40)) if has_pauses else 0.0

    def row() -> Row:
        pauses_s = (rng.expovariate(1 / pause_s) if pause_s else 0.0 for _ in range(num_pauses))
        document = text(document_tokens)
        return Row(document, agents, answer_tokens, is_declared, is_one_by_one, tuple(pauses_s))

    said_tokens = (num_pauses + 1) * answer_tokens * len(agents)
    kv_tokens = {}
    for model in models:
        own = [len(agent.instructions.split()) for agent in agents if agent.model == model]
        touched = sum(own) + num_rows * len(own) * (document_tokens + said_tokens)
        most = max(_LEAST_KV_TOKENS, int(touched * rng.uniform(0.15, 1.2)))
        kv_tokens[model] = most // BLOCK_TOKENS * BLOCK_TOKENS
    costs = {model: random_cost(rng) for model in models}
    rows, others = ([row() for _ in range(num_rows)] for _ in range(2))
    return Cell(rows, others, costs, kv_tokens)


def seconds(
    cell: Cell, rows: Sequence[Row], schedule: Schedule, store: MemoryStore | None = None
) -> float:
    """The virtual time of a run."""

    async def run() -> float:
        engines = {
            model: TokenEngine(
                cost,
                Capacity(cell.kv_tokens[model], BLOCK_TOKENS, max_requests=_MAX_REQUESTS),
                name=model,
            )
            for model, cost in cell.costs.items()
        }
        for engine in engines.values():
            await engine.start()
        start_s = asyncio.get_running_loop().time()
        async with Session(engines, schedule=schedule, memo=store) as session:
            async for _ in session.map(talk, rows):
                pass
        return asyncio.get_running_loop().time() - start_s

    return run_in_virtual_time(run())


@dataclass(frozen=True)
class Gain:
    """By how much the default schedule is faster than everything open.

    Args:
        first: In a first run.
        again: In a second one of other rows, with the profile of the first.
    """

    first: float
    again: float


def gain(cell: Cell) -> Gain:
    """By how much the default schedule is faster than everything open."""
    store = MemoryStore()
    first = seconds(cell, cell.rows, EverythingOpen()) / seconds(cell, cell.rows, Adaptive(), store)
    again = seconds(cell, cell.others, EverythingOpen()) / seconds(
        cell, cell.others, Adaptive(), store
    )
    return Gain(first, again)


def _show(name: str, values: Sequence[float]) -> None:
    mean = math.exp(sum(map(math.log, values)) / len(values))
    num_slower = sum(value < 0.98 for value in values)
    print(
        f"{name}: {mean:.2f} times as fast as everything open in geometric mean, "
        f"{min(values):.2f} to {max(values):.2f}; {num_slower} of {len(values)} below 0.98"
    )


def main() -> None:
    """Simulate, and print what came of each cell and of all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.random_rows", description=__doc__)
    parser.add_argument("--models", type=int, default=1, help="each has an engine of its own")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--pauses", action="store_true", help="after each round")
    how.add_argument(
        "--one-by-one", action="store_true", help="declare all, await one after the other"
    )
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="of the cells")
    options = parser.parse_args()
    if options.models < 1 or options.cells < 1:
        parser.error("--models and --cells are at least 1")
    found = []
    for number in range(options.first, options.first + options.cells):
        cell = random_cell(
            number,
            options.models,
            has_pauses=options.pauses,
            is_one_by_one=options.one_by_one,
        )
        found.append(gain(cell))
        print(
            f"{number:4} first run x{found[-1].first:.2f}  second x{found[-1].again:.2f}  {cell}",
            flush=True,
        )
    _show("first runs", [each.first for each in found])
    _show("second runs", [each.again for each in found])


if __name__ == "__main__":
    main()
