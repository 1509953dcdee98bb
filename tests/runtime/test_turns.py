"""Many calls that are ready at once are begun a few at a time: the first is sent at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from helium_agents import Session, gather, llm, user
from helium_agents.engines.engine import ChatMessage, Completion, Delta, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.runtime import evaluator
from helium_agents.runtime.evaluator import Turns


@pytest.fixture
def long_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is done takes so long that nothing more is to be done in the same round."""
    monkeypatch.setattr(evaluator, "TURN_S", 0.0)


async def take(each: Turns, done: list[int], number: int) -> None:
    if (turn := each.take()) is not None:
        await turn
    done.append(number)


async def test_turns_are_given_in_order_and_one_by_one(long_rounds: None) -> None:
    each, done = Turns(), list[int]()
    tasks = [asyncio.create_task(take(each, done, number)) for number in range(10)]
    rounds: list[int] = []
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        rounds.append(len(done))
    assert done == [*range(10)]
    assert all(after - before <= 1 for before, after in zip([0, *rounds], rounds, strict=False))
    await asyncio.sleep(0)
    assert each.take() is None  # all of that is over


async def test_more_have_their_turn_where_rounds_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    each, done = Turns(), list[int]()
    monkeypatch.setattr(evaluator, "TURN_S", 0.0)
    tasks = [asyncio.create_task(take(each, done, number)) for number in range(200)]
    await asyncio.sleep(0)
    monkeypatch.setattr(evaluator, "TURN_S", 60.0)
    num_rounds = 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        num_rounds += 1
    assert done == [*range(200)]
    assert num_rounds < 20


async def test_nobody_waits_for_who_was_cancelled(long_rounds: None) -> None:
    each, done = Turns(), list[int]()
    tasks = [asyncio.create_task(take(each, done, number)) for number in range(6)]
    await asyncio.sleep(0)
    for task in tasks[1:5]:
        task.cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert done == [0, 5]


class SlowToSend(ScriptedEngine):
    """Sends a request only when the event loop has been round, as vLLM does."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    async def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]] = ()
    ) -> list[int]:
        self.done.append("rendered")
        return await super().render(messages, tools)

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        for _ in range(3):
            await asyncio.sleep(0)
        self.done.append("sent")
        return await super().complete(request, on_delta)


async def test_the_first_is_sent_before_the_last_is_rendered(long_rounds: None) -> None:
    engine = SlowToSend()
    async with Session(engine):
        replies = await gather(*(llm(user(f"question {number}")) for number in range(50)))
    assert len({reply.text for reply in replies}) > 1
    assert engine.done[:10].count("sent") > 2
    assert engine.done.count("rendered") == engine.done.count("sent") == 50
