"""Kills the engine's processes five times during document QA, and says whether anything was lost.

    python -m benchmarks.kill_engine --kills 5

First a run that nobody disturbs, for comparison. Then the same run again, in which a process of
the engine is killed each time that some more calls were answered: core and worker in turn, by
SIGKILL and at last by SIGTERM. Then one in which a row asks what crashes this engine each time: a
seeded draw whose prompt is computed in parts, which torch's generator on a CPU does not take.
Exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import psutil  # comes with vLLM

from agents_examples.document_qa import answer
from agents_examples.rows import Document, read_rows
from helium_agents import VLLM, ItemError, Session, llm, operator, user
from helium_agents.engines.engine import Completion, Request
from helium_agents.engines.engine_watcher import shared_memory
from helium_agents.errors import PoisonRequest
from helium_agents.telemetry.events import CallSettled, EngineLost, EngineStarted, Event


class CountingVLLM(VLLM):
    """Counts the requests that it is sent."""

    num_requests = 0

    async def complete(self, request: Request, on_delta: Any = None) -> Completion:
        self.num_requests += 1
        return await super().complete(request, on_delta)


class Killer:
    """An observer that kills a process of the engine whenever so many calls were answered.

    What comes in after a kill is not counted: one that is dead already cannot die.

    Args:
        num_kills: How often.
        every: Calls that each life of the engine answers.
    """

    def __init__(self, num_kills: int, every: int) -> None:
        self.num_kills = num_kills
        self.num_done = 0
        self.num_victims = 0
        self.shared: set[str] = set()
        self._every = every
        self._num_answered = 0

    def __call__(self, event: Event) -> None:
        match event:
            case CallSettled(kind="llm", source="engine"):
                self._num_answered += 1
                if self._num_answered == self._every and self.num_done < self.num_kills:
                    self._kill()
            case EngineLost(num_open=num_open):
                self.num_victims += num_open
            case EngineStarted():
                self._num_answered = 0

    def _kill(self) -> None:
        is_last = self.num_done == self.num_kills - 1
        number = signal.SIGTERM if is_last else signal.SIGKILL
        core, *workers = engine_processes()
        self.shared |= shared_memory(process.pid for process in (core, *workers))
        victim = workers[0] if self.num_done % 2 and workers else core
        print(f"  {number.name} to {victim.name()}", flush=True)
        victim.send_signal(number)
        self.num_done += 1


def engine_processes() -> list[psutil.Process]:
    """The engine core and its workers."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("VLLM")]


async def run(
    engine: CountingVLLM, rows: Sequence[Document], *observers: Any
) -> tuple[list[Any], int, float]:
    """The results, the requests that the engine was sent, and the seconds."""
    start_s, engine.num_requests = time.perf_counter(), 0
    async with Session(engine, observers=observers) as session:
        results = [result async for result in session.map(answer, rows)]
    return results, engine.num_requests, time.perf_counter() - start_s


async def disturb(num_kills: int, rows: Sequence[Document]) -> bool:
    """Run twice, print what was found, and return whether all is well."""
    engine = CountingVLLM("random")
    await engine.start()
    try:
        expected, num_distinct, seconds = await run(engine, rows)
        print(f"undisturbed: {num_distinct} requests, {seconds:.1f} s", flush=True)
        # A life may end by more answers than that: many come in at once.
        killer = Killer(num_kills, every=max(1, num_distinct // (3 * num_kills)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results, num_requests, seconds = await run(engine, rows, killer)
        print(f"disturbed: {num_requests} requests, {seconds:.1f} s")
    finally:
        await engine.close()
    died = [str(each.message) for each in caught if "died" in str(each.message)]
    print(*(f"  {text}" for text in died), sep="\n")
    most = num_distinct + killer.num_victims
    checks = {
        "the results are the same": results == expected,
        f"{killer.num_done} kills, {len(died)} warnings": killer.num_done == len(died) == num_kills,
        f"{num_requests} requests, at most {num_distinct} + {killer.num_victims} victims": (
            num_requests <= most
        ),
        "no process is left": not engine_processes(),
        "no shared memory is left": not any(map(os.path.exists, killer.shared)),
    }
    return said(checks)


@operator
async def draw(text: str) -> str:
    """A seeded draw."""
    return (await llm(user(text), temperature=1, seed=1, max_tokens=8)).text


async def poison(num_rows: int) -> bool:
    """Run with a row whose request crashes the engine; print, and return whether all is well."""
    # The prompt of one row alone is longer than what a step computes.
    rows = [f"Row {number}." for number in range(num_rows)]
    rows[num_rows // 2] = "This row is poison." + " word" * 1500
    engine = VLLM("random", kv_tokens=8192, enable_chunked_prefill=True, max_num_batched_tokens=512)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with Session(engine) as session:
            found = session.map(draw, rows, on_error="collect")
            results: list[Any] = [each async for each in found]
    died = [str(each.message) for each in caught if "died" in str(each.message)]
    failed = [each for each in results if isinstance(each, ItemError)]
    print(*(f"  {text}" for text in died), sep="\n")
    print(*(f"  {error.__cause__}"[:160] for error in failed), sep="\n")
    return said(
        {
            f"one of {num_rows} rows failed": len(failed) == 1,
            "it is the poisonous one": [error.index for error in failed] == [num_rows // 2],
            "the error names its request": all(
                isinstance(error.__cause__, PoisonRequest) and "is poison" in str(error.__cause__)
                for error in failed
            ),
            "the other rows have answers": all(
                isinstance(each, str) and each for each in results if each not in failed
            ),
            "three deaths, three warnings": len(died) == 3,
            "no process is left": not engine_processes(),
        }
    )


def said(checks: dict[str, bool]) -> bool:
    """Print what holds and what does not; whether all does."""
    for text, holds in checks.items():
        print("ok  " if holds else "FAIL", text, flush=True)
    return all(checks.values())


async def both(num_kills: int, rows: Sequence[Document]) -> bool:
    """Kills, then poison; whether all is well."""
    is_well = not num_kills or await disturb(num_kills, rows)
    return await poison(num_rows=12) and is_well


def main() -> None:
    """Run and print a verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5, help="0: poison only")
    parser.add_argument("--rows", type=int, default=None, help="default: all bundled documents")
    arguments = parser.parse_args()
    rows = read_rows(Document, "documents.jsonl")[: arguments.rows]
    sys.exit(0 if asyncio.run(both(arguments.kills, rows)) else 1)


if __name__ == "__main__":
    main()
