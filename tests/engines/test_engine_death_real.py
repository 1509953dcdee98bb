"""The real engine's processes are killed in mid-run: nothing is lost, and nothing is left over."""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agents_examples.document_qa import answer
from agents_examples.rows import Document, read_rows
from helium_agents import VLLM, Session, llm, user
from helium_agents.engines.engine_watcher import shared_memory
from helium_agents.telemetry.events import CallSettled, EngineLost, EngineStarted, Event

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

ROWS = read_rows(Document, "documents.jsonl")[:3]


def engine_processes() -> list[Any]:
    """The engine core, and then its worker, if that is a process of its own."""
    import psutil

    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("VLLM")]


def shared_files() -> set[str]:
    """What the engine's processes have in shared memory."""
    return shared_memory(process.pid for process in engine_processes())


@contextmanager
def deaths() -> Iterator[list[str]]:
    """The warnings of deaths."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        yield found
    found += [str(each.message) for each in caught if "died" in str(each.message)]


class Killer:
    """Kills the engine twice: one of its processes, the last one first, after a few answers."""

    def __init__(self, after_answers: int) -> None:
        self.after_answers = after_answers
        self.num_answers = 0
        self.lost: list[EngineLost] = []
        self.shared: set[str] = set()

    def __call__(self, event: Event) -> None:
        match event:
            case EngineLost():
                self.lost.append(event)
            case EngineStarted():
                self.num_answers = 0
            case CallSettled(kind="llm", source="engine"):
                self.num_answers += 1
                if self.num_answers == self.after_answers and len(self.lost) < 2:
                    self.shared |= shared_files()
                    engine_processes()[len(self.lost) - 1].kill()


async def run(engine: VLLM, *observers: Any) -> tuple[list[Any], int]:
    async with Session(engine, observers=observers) as session:
        results = [result async for result in session.map(answer, ROWS)]
    return results, session.summary.num_computed


async def test_kills_in_mid_run_change_nothing(
    engine: VLLM, capfd: pytest.CaptureFixture[str]
) -> None:
    expected, num_computed = await run(engine)
    killer = Killer(num_computed // 6)
    capfd.readouterr()
    with deaths() as died:
        results, num_again = await run(engine, killer)
    assert (results, num_again) == (expected, num_computed)
    assert len(died) == len(killer.lost) == 2
    assert all("engine 'random' died" in text and "it was killed" in text for text in died)
    assert all(event.num_open for event in killer.lost)
    assert engine_processes()
    assert killer.shared and not list(filter(os.path.exists, killer.shared))
    assert "Traceback" not in capfd.readouterr().err
    gc.collect()  # warns of what vLLM has left open


# vLLM leaves its ZeroMQ context to the garbage collector when a start fails.
@pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning")
async def test_one_that_dies_idle_is_missed_by_the_next_call_and_may_be_left(engine: VLLM) -> None:
    """The first request of a life is the one that vLLM would let wait for ever."""
    old = engine_processes()
    shared = shared_files()
    old[0].kill()
    with deaths() as died:
        async with Session(engine):
            call = asyncio.ensure_future(llm(user("Hello"), max_tokens=4))
            while not set(engine_processes()) - set(old):  # noqa: ASYNC110 - vLLM tells nobody
                await asyncio.sleep(0.05)
            await asyncio.sleep(1)
        assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], Exception)
    assert len(died) == 1
    assert engine_processes() == []
    assert not list(filter(os.path.exists, shared))
    assert not engine.is_started  # no test needs it after this one: see tests/conftest.py
