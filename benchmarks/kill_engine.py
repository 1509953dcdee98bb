"""Kills the engine's processes five times during document QA, and says whether anything was lost.

    python -m benchmarks.kill_engine --kills 5

First a run that nobody disturbs, for comparison. Then the same run again, in which a process of
the engine is killed each time that some more calls were answered: core and worker in turn, by
SIGKILL and at last by SIGTERM. Exits with 1 if anything is not as it should be.
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

import psutil  # type: ignore[import-untyped]  # comes with vLLM

from agents_examples.document_qa import answer
from agents_examples.rows import Document, read_rows
from helium_agents import VLLM, Session
from helium_agents.engines.engine import Completion, Request
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
        victim = workers[0] if self.num_done % 2 and workers else core
        print(f"  {number.name} to {victim.name()}", flush=True)
        victim.send_signal(number)
        self.num_done += 1


def engine_processes() -> list[psutil.Process]:
    """The engine core and its workers."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("VLLM")]


def shared_memory() -> set[str]:
    """What multiprocessing has in shared memory."""
    return {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "sem."))}


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
    shared_before = shared_memory()
    engine = CountingVLLM()
    await engine.start()
    try:
        expected, num_distinct, seconds = await run(engine, rows)
        print(f"undisturbed: {num_distinct} requests, {seconds:.1f} s", flush=True)
        # A life may end by more answers than that: many come in at once.
        killer = Killer(num_kills, every=num_distinct // (3 * num_kills))
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
        "no shared memory is left": not shared_memory() - shared_before,
    }
    for text, holds in checks.items():
        print("ok  " if holds else "FAIL", text)
    return all(checks.values())


def main() -> None:
    """Run and print a verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rows", type=int, default=None, help="default: all bundled documents")
    arguments = parser.parse_args()
    rows = read_rows(Document, "documents.jsonl")[: arguments.rows]
    sys.exit(0 if asyncio.run(disturb(arguments.kills, rows)) else 1)


if __name__ == "__main__":
    main()
