"""Learned guesses: what came before is guessed, and what an answer begins with is believed."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from gate import ticks, until
from pydantic import BaseModel

from helium_agents import Budget, Session, ToolCall, agent_loop, llm, operator, user
from helium_agents.engines.engine import Completion, Delta, OnDelta, Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.memo.memory import MemoryStore

pytestmark = pytest.mark.usefixtures("quiet_loop")

LAVISH = Budget(max_extra_tokens=1e9, least_probability=0.3)


class Reviewed(BaseModel):
    verdict: Literal["good", "bad"]
    reason: str


class Held:
    """A script that holds back the answer to one question until the test lets it go."""

    def __init__(self, question: str, **answers: Any) -> None:
        self.question, self.answers = question, answers
        self.door = asyncio.Event()

    async def __call__(self, request: Request) -> Any:
        question = request.messages[-1].content
        if question == self.question:
            await self.door.wait()
        known = [answer for key, answer in self.answers.items() if question.startswith(key)]
        return known[0] if known else f"re {question}"


@operator(pure=True)
async def decide(question: str) -> str:
    verdict = (await llm(user(f"judge {question}"), schema=Literal["good", "bad"])).parsed
    return (await llm(user(f"{verdict} {question}"))).text


@operator(pure=True)
async def review(question: str) -> str:
    found = (await llm(user(f"judge {question}"), schema=Reviewed)).parsed
    text = (await llm(user(f"{found.verdict} {question}"))).text
    return f"{text} {found.reason}"


async def learned(session: Session, work: Any, number: int = 6) -> None:
    async for _ in session.map(work, [str(each) for each in range(number)]):
        pass


def asked(engine: ScriptedEngine) -> list[str]:
    return [request.messages[-1].content for request in engine.requests]


async def test_what_usually_comes_is_guessed() -> None:
    engine = ScriptedEngine(Held("judge x", judge='"good"'))
    async with Session(engine, speculate=LAVISH) as session:
        await learned(session, decide)
        answer = asyncio.create_task(session.run(decide, "x"))
        await until(lambda: "good x" in asked(engine))
        engine._script.door.set()  # type: ignore[union-attr]
        assert await answer == "re good x"
    assert asked(engine).count("good x") == 1
    assert "bad x" not in asked(engine)


async def test_what_earlier_runs_have_counted_is_guessed_from_the_first_row_on() -> None:
    store = MemoryStore()
    async with Session(ScriptedEngine(Held("", judge='"bad"')), memo=store) as session:
        await learned(session, decide, 8)
    script = Held("judge x", judge='"bad"')
    engine = ScriptedEngine(script)
    async with Session(engine, memo=store, speculate=LAVISH) as session:
        rows = asyncio.create_task(learned_rows(session))
        await until(lambda: "bad x" in asked(engine))
        script.door.set()
        assert await rows == ["re bad x"]


async def learned_rows(session: Session) -> list[str]:
    return [text async for text in session.map(decide, ["x"])]


async def test_of_a_part_of_an_answer_only_that_may_be_read() -> None:
    said = json.dumps({"verdict": "good", "reason": "so"})
    script = Held("judge x", judge=said)
    engine = ScriptedEngine(script)

    @operator(pure=True)
    async def reads_reason(question: str) -> str:
        found = (await llm(user(f"judge {question}"), schema=Reviewed)).parsed
        return (await llm(user(f"because {found.reason} {question}"))).text

    async with Session(engine, speculate=LAVISH) as session:
        await learned(session, review)
        await learned(session, reads_reason)
        answers = [asyncio.create_task(session.run(work, "x")) for work in (review, reads_reason)]
        await until(lambda: "good x" in asked(engine))
        await ticks()
        assert "because so x" not in asked(engine)
        script.door.set()
        assert await asyncio.gather(*answers) == ["re good x so", "re because so x"]


class Streamed(ScriptedEngine):
    """Says the first words of an answer before it is held back."""

    beginning = '{"verdict": "bad", "rea'

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        if on_delta is not None:
            on_delta(Delta(0, self.beginning))
        return await super().complete(request)


async def test_a_verdict_that_is_written_is_known_before_its_reasons() -> None:
    script = Held("judge x", judge=json.dumps({"verdict": "bad", "reason": "so"}))
    engine = Streamed(script)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(review, "x"))
        await until(lambda: "bad x" in asked(engine))
        script.door.set()
        assert await answer == "re bad x so"


@operator(pure=True)
async def page(name: str) -> str:
    return json.dumps({"next": f"{name}+"})


@operator(pure=True)
async def agent(question: str) -> str:
    return (await agent_loop(user(question), tools=[page])).text


async def test_the_tool_that_usually_follows_is_run_and_its_result_told() -> None:
    door = asyncio.Event()
    followed: list[str] = []

    async def script(request: Request) -> Any:
        question, last = request.messages[0].content, request.messages[-1].content
        num_turns = len(request.messages)
        followed.append(f"{question} {num_turns}")
        if num_turns == 7:
            return f"done {question}"
        if (question, num_turns) == ("x", 3):
            await door.wait()
        name = question if num_turns == 1 else json.loads(last)["next"]
        return ScriptedReply("", [ToolCall("page", {"name": name})])

    async with Session(ScriptedEngine(script), speculate=LAVISH) as session:
        for question in "abcdef":
            await session.run(agent, question)
        answer = asyncio.create_task(session.run(agent, "x"))
        await until(lambda: "x 7" in followed)
        assert not answer.done()
        door.set()
        assert await answer == "done x"
        assert followed.count("x 7") == 1
