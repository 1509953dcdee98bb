"""An engine that answers, or fails, without ever giving the event loop a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from helium_agents import ItemError, Session, gather, llm, operator, user
from helium_agents.engines.engine import Choice, Completion, Delta, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import EngineError, RequestError


class PromptEngine(ScriptedEngine):
    """Answers with the question, at once."""

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        self.num_requests += 1
        question = request.messages[-1].content
        if question.startswith("bad"):
            raise RequestError(question)
        return Completion((Choice(question, (1,), "stop"),))


@operator
async def ask(question: str) -> str:
    return (await llm(user(question))).text


async def test_a_thousand_answers_at_once_starve_nobody() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(count_turns())
    async with Session(PromptEngine()) as session:
        rows = [f"q{index}" for index in range(2000)]
        assert [text async for text in session.map(ask, rows)] == rows
        assert turns >= 100
        for row in rows[:50]:  # one after another, in one task
            assert await ask(row + "!") == row + "!"
        assert [reply.text for reply in await gather(*(llm(user(row + "?")) for row in rows))] == [
            row + "?" for row in rows
        ]
    other.cancel()


async def test_an_error_at_once_is_that_of_its_call() -> None:
    async with Session(PromptEngine()) as session:
        results = session.map(ask, ["a", "bad row", "b"], on_error="collect")
        found = [result async for result in results]
        assert (found[0], found[2]) == ("a", "b")
        assert isinstance(found[1], ItemError)
        assert isinstance(found[1].__cause__, RequestError)
        with pytest.raises(RequestError, match="bad call"):
            await ask("bad call")
        with pytest.raises(EngineError):
            await gather(ask("bad one"), ask("good one"))


async def test_a_call_that_is_cancelled_before_it_was_planned_is_never_asked() -> None:
    engine = PromptEngine()
    async with Session(engine):
        first, second = asyncio.create_task(llm(user("x"))), asyncio.create_task(llm(user("y")))
        await asyncio.sleep(0)  # both are demanded, none is planned
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).text == "y"
        assert engine.num_requests == 1
        assert (await llm(user("x"))).text == "x"  # and is as if it had never been asked
    assert engine.num_requests == 2


async def test_nine_of_ten_get_their_answer() -> None:
    engine = PromptEngine()
    async with Session(engine):
        asking = [asyncio.create_task(llm(user("x"))) for _ in range(10)]
        await asyncio.sleep(0)
        asking[3].cancel()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(outcomes.pop(3), asyncio.CancelledError)
    assert [reply.text for reply in outcomes if not isinstance(reply, BaseException)] == ["x"] * 9
    assert engine.num_requests == 1
