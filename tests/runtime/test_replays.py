"""Bodies that are run again take no more of the event loop's time than they may."""

from __future__ import annotations

import asyncio
import time

import pytest
from gate import ticks

from helium_agents import Budget, Session, llm, operator, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.runtime.speculation import replays
from helium_agents.runtime.speculation.replays import Replays

pytestmark = pytest.mark.usefixtures("quiet_loop")

LAVISH = Budget(max_extra_tokens=1e9, least_probability=0.0)


def compute(seconds: float) -> None:
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


async def test_a_body_that_computes_is_not_run_again_at_each_of_its_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs: list[int] = []

    @operator(pure=True, version="1")
    async def steps() -> None:
        for number in range(12):
            runs.append(number)
            compute(0.02)
            await llm(user(f"q {number}"), predict=lambda messages: f"re {messages[-1].content}")

    async def script(request: Request) -> str:
        await ticks(50)
        return f"re {request.messages[-1].content}"

    monkeypatch.setattr(replays, "_MOST_SHARE", 0.0)  # but what is there at the beginning
    async with Session(ScriptedEngine(script), speculate=LAVISH) as session:
        await session.run(steps)
    assert 12 < len(runs) <= 12 + 0.1 / 0.02 + 1


async def test_time_that_passes_may_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "_MOST_SAVED_S", 0.01)
    monkeypatch.setattr(replays, "_MOST_SHARE", 0.0)

    async def work() -> None:
        compute(0.03)

    found = Replays()
    await found.timed(work())
    assert not found.may_go_on
    monkeypatch.setattr(replays, "_MOST_SHARE", 1.0)
    await asyncio.sleep(0.05)
    assert found.may_go_on


async def test_what_is_timed_is_cancelled_and_fails_as_ever() -> None:
    seen: list[str] = []

    async def work(error: Exception | None) -> str:
        try:
            await asyncio.sleep(0)
            if error is not None:
                raise error
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)
            raise
        return ""

    async def timed(error: Exception | None = None) -> str:
        return await Replays().timed(work(error))

    with pytest.raises(ValueError, match="its own"):
        await timed(ValueError("its own"))
    task = asyncio.create_task(timed())
    await ticks(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]
