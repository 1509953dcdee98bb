"""Traces of workflows with a problem planted in each, made in virtual time on vLLM's scheduler.

    python -m tests.viewer.planted FOLDER

writes `layout.trace`, `loop.trace` and `cache.trace`, for `helium view`.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from helium_agents import Session, llm, operator, system, user
from helium_agents.engines.engine import Capacity, Completion, OnDelta, Request
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.schedule import EverythingOpen
from helium_agents.optimizer.step_cost import STEP_COSTS

_WORDS = [
    "river", "stone", "market", "season", "letter", "harbour", "engine", "garden", "window",
    "copper", "signal", "valley", "meadow", "lantern", "bridge", "archive", "thunder", "compass",
]  # fmt: skip


class WordEngine(SimulatedEngine):
    """A simulated engine that answers with as many words as tokens."""

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        completion = await super().complete(request, on_delta)
        choice = completion.choices[0]
        text = words(len(choice.token_ids), seed=sum(request.prompt_token_ids))
        return completion._replace(choices=(replace(choice, text=text, finish_reason="stop"),))


def words(number: int, seed: int) -> str:
    """Some words; the same ones for the same seed."""
    rng = random.Random(seed)
    return " ".join(rng.choice(_WORDS) for _ in range(number))


def engine(kv_tokens: int = 65_536, max_requests: int = 16) -> WordEngine:
    limits = Capacity(kv_tokens, 16, min(kv_tokens, 8192), max_requests)
    return WordEngine(STEP_COSTS["cpu-medium"], limits, _length, name="simulated")


def _length(request: Request) -> int:
    return request.sampling.max_tokens // 2


# --- a document after the question ---------------------------------------------------------------

CONTRACT = words(500, seed=1)


@operator
async def ask_contract(number: int) -> str:
    question = f"Question {number}: {words(12, seed=100 + number)}?"
    return (await llm(user(f"{question}\n\nContract: {CONTRACT}"), max_tokens=32)).text


async def layout(path: Path) -> None:
    """Every question is about one contract, which comes after it."""
    async with Session(engine(), trace=path) as session:
        assert len([each async for each in session.map(ask_contract, range(32))]) == 32


# --- a loop that always runs to its limit --------------------------------------------------------

LIMIT = 6


@operator
async def improve(number: int) -> str:
    draft = words(20, seed=number)
    for turn in range(LIMIT):
        request = f"Draft {number}.{turn}: {draft}\nImprove it, or say DONE."
        draft = (await llm(system("You improve drafts."), user(request), max_tokens=96)).text
        if "DONE" in draft:
            break
    return draft


async def loop(path: Path) -> None:
    """The word that would end the loop never comes."""
    async with Session(engine(), trace=path) as session:
        assert len([each async for each in session.map(improve, range(24))]) == 24


# --- a cache too small ---------------------------------------------------------------------------


@operator
async def compare_chapters(number: int) -> str:
    chapter = words(700, seed=200 + number)
    found = ""
    for part in ("people", "places", "dates"):
        request = f"Chapter {number}: {chapter}\n\nList its {part}."
        found += (await llm(user(request), max_tokens=48)).text
    return found


async def cache(path: Path) -> None:
    """Each row comes back to its chapter; the cache holds three chapters, and ten rows are open."""
    small = engine(kv_tokens=2560, max_requests=3)
    async with Session(small, trace=path, schedule=EverythingOpen()) as session:
        assert len([each async for each in session.map(compare_chapters, range(10))]) == 10


PLANTED: dict[str, Callable[[Path], Awaitable[None]]] = {
    "layout": layout,
    "loop": loop,
    "cache": cache,
}


def plant(name: str, folder: Path) -> Path:
    """Write a trace with a problem."""

    async def write() -> None:
        await PLANTED[name](path)

    path = folder / f"{name}.trace"
    run_in_virtual_time(write())
    return path


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in PLANTED:
        print(plant(name, folder))


if __name__ == "__main__":
    main()
