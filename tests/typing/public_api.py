"""What users write, for type checkers: each name that is public, and the types that come out.

`make types` and `make pyright` check this file as a user's program; nobody runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Unpack, assert_type

from pydantic import BaseModel

from helium_agents import (
    VLLM,
    Choice,
    HeliumError,
    Image,
    ItemError,
    LmdbStore,
    MemoryStore,
    Message,
    OpenAIServer,
    Operator,
    Prompt,
    Ref,
    Replicas,
    Reply,
    Session,
    SessionOptions,
    ToolCall,
    agent_loop,
    assistant,
    gather,
    image,
    llm,
    operator,
    prompt,
    run,
    run_tools,
    system,
    tool,
    user,
)
from helium_agents.batch import Batch
from helium_agents.engines.engine import Completion, Engine, OnDelta, Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.optimizer.park import Park
from helium_agents.optimizer.schedule import EverythingOpen
from helium_agents.telemetry.events import CallSettled, Event
from helium_agents.trace import read_trace


@dataclass
class Row:
    question: str


class Verdict(BaseModel):
    score: int


class Tone(Enum):
    DRY = "dry"


@operator
async def ask(row: Row, length: int = 64) -> str:
    reply = await llm(system("Be brief."), user(row.question), max_tokens=length)
    assert_type(reply, Reply[None])
    assert_type(reply.texts, tuple[str, ...])
    return reply.text


@operator(pure=True, version="1", retries=2, retry_on=(TimeoutError, ConnectionError), timeout=30)
async def judge(text: str) -> Verdict:
    reply = await llm(user(text), schema=Verdict, temperature=0.7, seed=1)
    assert_type(reply.parsed, Verdict)
    tone = await llm(user(text), schema=Tone)
    assert_type(tone.parsed, Tone)
    either = await llm(user(text), schema=int | str)
    anything = await llm(user(text), schema={"type": "object"})
    assert_type(anything, Reply[Any])
    print(either.parsed, tone.text)
    return reply.parsed


async def ask_plainly(row: Row) -> str:
    return row.question


class Team:
    def __init__(self, role: str) -> None:
        self.role = role

    @operator
    async def answer(self, question: str) -> str:
        return (await llm(system(self.role), user(question), model="big", share=False)).text


async def workflow(row: Row) -> int:
    draft = ask(row, length=32)
    assert_type(draft, Ref[str])
    made: Operator[[Row], str] = operator(ask_plainly, pure=True, name="made")
    assert_type(made(row), Ref[str])
    improved = llm(user(prompt("Improve {draft}", draft=draft)), assistant("Sure."))
    assert_type(improved, Ref[Reply[None]])
    deferred = judge.defer(draft)
    assert_type(deferred, Ref[Verdict])
    text, verdict, number = await gather(draft, deferred, asyncio.sleep(0, 1))
    assert_type(text, str)
    assert_type(verdict, Verdict)
    assert_type(number, int)
    assert_type(await gather(*(ask(row) for _ in range(3))), tuple[str, ...])
    assert_type(await asyncio.gather(ask(row), judge("a")), tuple[str, Verdict])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ask(row))
    assert_type(task.result(), str)
    team = Team("a critic")
    assert_type(await team.answer("why?"), str)
    draft.start()
    async for piece in improved.stream():
        assert_type(piece, str)
    return verdict.score


def look_up(query: str) -> str:
    """Look something up."""
    return query


async def with_tools(picture: Path) -> str:
    history: list[Message] = [user("What is this?", image(picture))]
    shown: Image = image(picture)
    reply = await llm(*history, user(shown), tools=[look_up, judge, {"name": "other"}])
    for call in reply.tool_calls:
        assert_type(call, ToolCall)
        history.append(tool("found", call))
    history += await run_tools(reply, [look_up], on_error="raise")
    choice: Choice = reply.choices[0]
    template: Prompt = prompt("{a}", a="b")
    last = await agent_loop(*history, user(template), tools=[look_up])
    return last.text + choice.text


class Shouting:
    name = "shouting"

    def identity(self) -> str:
        return "shouting 1"

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        text = request.messages[-1].content.upper()
        return Completion((Choice(text, (), "stop"),), prompt_tokens=1, output_tokens=1)


async def questions() -> AsyncIterator[Row]:
    yield Row("why?")


def watch(event: Event) -> None:
    if isinstance(event, CallSettled):
        print(event.label, event.usage.output_tokens)


def session_of_mine(**options: Unpack[SessionOptions]) -> Session:
    return Session("Qwen/Qwen3-8B", observers=[watch, print], **options)


def scripted(request: Request) -> str | ScriptedReply:
    return ScriptedReply(tool_calls=[ToolCall("look_up", {"query": "a"})])


async def main() -> None:
    engine: Engine = Shouting()
    tested = Session(ScriptedEngine(scripted))
    server = OpenAIServer("http://localhost:8000/v1", "Qwen/Qwen3-8B", weights="main")
    spread = Replicas([VLLM("Qwen/Qwen3-8B"), VLLM("Qwen/Qwen3-8B")])
    store = LmdbStore("memo", max_bytes=2**30, ttl_s=86_400)
    sessions = [
        tested,
        Session(engine, memo=store, schedule=Park(), trace="run.trace"),
        Session(
            {"big": VLLM(), "small": server},
            memo=MemoryStore(),
            schedule=EverythingOpen(),
            record=True,
        ),
        Session(spread, memo=Path("memo"), max_open=8, token_budget=1_000),
        session_of_mine(share=False, rules=()),
    ]
    for session in sessions:
        async with session:
            async for number in session.map(workflow, [Row("a")]):
                assert_type(number, int)
            async for text in session.map(ask, questions(), ordered=False):
                assert_type(text, str)
            async for either in session.map(ask, [Row("a")], on_error="collect"):
                assert_type(either, str | ItemError)
            async for index, text in session.map(ask, [Row("a")]).indexed():
                assert_type(index, int)
                assert_type(text, str)
            assert_type(await session.run(ask, Row("a")), str)
            print(session.waiting(), session.explain(optimized=True), session.summary.num_calls)
    batch = Batch(ask, "rows.jsonl", "answers.jsonl", engine=engine, memo="memo", resume=True)
    await batch.run()
    print(len(batch.rows), batch.summary.num_computed, read_trace("run.trace").calls)


if __name__ == "__main__":
    try:
        assert_type(run(ask, Row("a"), memo="memo"), str)
    except HeliumError as error:
        print(error)
