"""The real engine's processes are killed in mid-run: nothing is lost, and nothing is left over."""

from __future__ import annotations

import asyncio
import os
import signal
import warnings
from typing import Any

import pytest

from agents_examples.document_qa import answer
from agents_examples.rows import Document, read_rows
from helium_agents import VLLM, Session, llm, user
from helium_agents.telemetry.events import CallSettled, EngineLost, EngineStarted, Event

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

ROWS = read_rows(Document, "documents.jsonl")[:3]


def engine_processes() -> list[Any]:
    """The engine core, and then its workers."""
    import psutil

    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("VLLM")]


def shared_memory() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "sem."))}


class Killer:
    """Kills the core, and in the engine's next life the worker, after a few answers each."""

    def __init__(self, after_answers: int) -> None:
        self.after_answers = after_answers
        self.num_answers = 0
        self.lost: list[EngineLost] = []

    def __call__(self, event: Event) -> None:
        match event:
            case EngineLost():
                self.lost.append(event)
            case EngineStarted():
                self.num_answers = 0
            case CallSettled(kind="llm", source="engine"):
                self.num_answers += 1
                if self.num_answers == self.after_answers and len(self.lost) < 2:
                    engine_processes()[len(self.lost)].kill()


async def run(engine: VLLM, *observers: Any) -> tuple[list[Any], int]:
    async with Session(engine, observers=observers) as session:
        results = [result async for result in session.map(answer, ROWS)]
    return results, session.summary.num_computed


async def test_kills_in_mid_run_change_nothing(
    engine: VLLM, capfd: pytest.CaptureFixture[str]
) -> None:
    num_shared = len(shared_memory())
    expected, num_computed = await run(engine)
    killer = Killer(num_computed // 6)
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        results, num_again = await run(engine, killer)
    assert (results, num_again) == (expected, num_computed)
    died = [str(each.message) for each in caught if "died" in str(each.message)]
    assert len(died) == len(killer.lost) == 2
    assert all("engine 'embedded' died" in text and "it was killed" in text for text in died)
    assert all(event.num_open for event in killer.lost)
    assert len(engine_processes()) == 2
    assert len(shared_memory()) == num_shared
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning")  # of vLLM's failed start
async def test_leaving_during_a_restart_leaves_nothing(engine: VLLM) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        async with Session(engine):
            call = asyncio.ensure_future(llm(user("A long story."), max_tokens=8_000))
            while not engine.num_open_requests:  # noqa: ASYNC110 - vLLM tells nobody
                await asyncio.sleep(0.01)
            engine_processes()[0].send_signal(signal.SIGTERM)
            old = {process.pid for process in engine_processes()}
            while {process.pid for process in engine_processes()} <= old:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.sleep(1)
        assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], Exception)
    assert engine_processes() == []
    assert shared_memory() == set()
    assert not engine.is_started
    await engine.start()  # for the other tests


async def test_one_that_died_idle_is_started_for_the_next_call(engine: VLLM) -> None:
    engine_processes()[0].kill()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        async with Session(engine):
            reply = await llm(user("Hello"), max_tokens=4)
    assert reply.text
    assert sum("died" in str(each.message) for each in caught) == 1
