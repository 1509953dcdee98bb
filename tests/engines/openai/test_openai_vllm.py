"""`OpenAIServer` against vLLM's own server: the answers of the engine in this process."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
import pytest_asyncio
from pydantic import Field

from benchmarks.harness.server import MODEL_NAME, Server
from helium_agents import (
    VLLM,
    OpenAIServer,
    Session,
    assistant,
    gather,
    llm,
    operator,
    run_tools,
    user,
)
from helium_agents.engines.engine import ChatMessage, Choice, Delta, Request, Sampling
from helium_agents.engines.model_source import find_model
from helium_agents.engines.vllm.settings import Settings
from helium_agents.errors import EngineStartError
from tests.engines.evicted import left_of_the_first
from tests.engines.server_arguments import server_arguments

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

NUM_PROMPTS = 150
KV_TOKENS = 4096
WORDS = [
    "the", "a", "of", "to", "and", "in", "water", "house", "seven", "never", "12", "%", "ü\n",
    "café", "because", "quick", "brown", "fox",
]  # fmt: skip


def command_line() -> list[str]:
    """What makes the server's engine that of `VLLM("random")`."""
    line = server_arguments(Settings("random", kv_tokens=KV_TOKENS))
    line += ["--enable-prompt-tokens-details"]
    return [*line, "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(cache_home: Path) -> AsyncIterator[Server]:
    server = Server(command_line())
    await server.start()
    yield server
    await server.close()


def requests(num: int, **sampling: float) -> list[Request]:
    """Prompts of many lengths, some with a common beginning, whose answers are of some length."""
    draws = random.Random(0)
    common = " ".join(draws.choices(WORDS, k=200))
    found = []
    for number in range(num):
        text = " ".join(draws.choices(WORDS, k=draws.choice((3, 20, 120))))
        content = f"{common} {text}" if number % 3 == 0 else text
        messages = (ChatMessage("system", f"Agent {number % 4}."), ChatMessage("user", content))
        found.append(Request(f"r{number}", messages, (), Sampling(16, **sampling)))  # type: ignore[arg-type]
    return found


async def answers(
    engine: VLLM | OpenAIServer, asked: Sequence[Request], *, is_streamed: bool = False
) -> list[tuple[Choice, ...]]:
    """What an engine answers, sixteen requests at once."""
    slots = asyncio.Semaphore(16)

    async def answer(request: Request) -> tuple[Choice, ...]:
        async with slots:
            values = {each.name: getattr(request, each.name) for each in fields(Request)}
            if hasattr(engine, "render"):
                values["prompt_token_ids"] = await engine.render(request.messages)
            heard: list[Delta] = []
            completion = await engine.complete(
                Request(**values), heard.append if is_streamed else None
            )
            if is_streamed:
                assert "".join(delta.text for delta in heard) == completion.choices[0].text
            return completion.choices

    return await asyncio.gather(*map(answer, asked))


def with_tokenizer(server: Server, **options: object) -> OpenAIServer:
    return OpenAIServer(server.url, MODEL_NAME, tokenizer="random", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_it_answers_as_the_engine_in_this_process(
    server: Server, engine: VLLM, is_streamed: bool
) -> None:
    asked = requests(NUM_PROMPTS)
    expected = await answers(engine, asked)
    async with with_tokenizer(server) as there:
        assert await answers(there, asked, is_streamed=is_streamed) == expected
    assert len(set(expected)) > NUM_PROMPTS / 2  # or equality would prove nothing


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_messages_are_rendered_there_as_here(
    server: Server, engine: VLLM, is_streamed: bool
) -> None:
    asked = requests(30)
    async with OpenAIServer(server.url, MODEL_NAME) as there:
        got = await answers(there, asked, is_streamed=is_streamed)
    assert got == await answers(engine, asked)


async def test_every_sampling_value_means_the_same(server: Server, engine: VLLM) -> None:
    every = [
        {"temperature": 1.0, "seed": 7},
        {"temperature": 1.5, "seed": 7, "top_p": 0.5, "top_k": 20, "min_p": 0.01},
        {"presence_penalty": 1.5, "frequency_penalty": 1.0, "repetition_penalty": 1.3},
    ]
    async with with_tokenizer(server) as there:
        for sampling in every:
            asked = requests(6, **sampling)
            assert await answers(there, asked) == await answers(engine, asked)


async def test_a_short_answer_is_cut_from_a_long_one(server: Server) -> None:
    async with Session(with_tokenizer(server)) as session:
        long = await llm(user("hello"), max_tokens=24)
        short = await llm(user("hello"), max_tokens=5)
        assert session.summary.num_computed == 1
    assert long.text.startswith(short.text) and len(short.choices[0].token_ids) == 5


async def test_a_schema_holds(server: Server) -> None:
    schema = {
        "type": "object",
        "properties": {"sure": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}},
        "required": ["sure", "kind"],
        "additionalProperties": False,
    }
    for engine in (with_tokenizer(server), OpenAIServer(server.url, MODEL_NAME)):
        async with Session(engine):
            parsed = (await llm(user("hello"), schema=schema, max_tokens=60)).parsed
        assert set(parsed) == {"sure", "kind"} and parsed["kind"] in "ab"


async def counted(server: Server) -> tuple[int, int]:
    """How many requests the server computes, and how many tokens it has generated, ever."""
    async with httpx.AsyncClient() as client:
        lines = (await client.get(f"{server.url.removesuffix('/v1')}/metrics")).text.splitlines()
    values = {line.partition("{")[0]: int(float(line.split()[-1])) for line in lines if "{" in line}
    return values["vllm:num_requests_running"], values["vllm:generation_tokens_total"]


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_request_that_is_left_is_freed_there(server: Server, is_streamed: bool) -> None:
    async with with_tokenizer(server) as engine:
        ids = await engine.render((ChatMessage("user", "hello"),))
        long, short = (
            Request("long", (), ids, Sampling(1900)),
            Request("short", (), ids, Sampling(2)),
        )
        _, tokens_before = await counted(server)
        heard = asyncio.Event()
        ask = engine.complete(long, (lambda _: heard.set()) if is_streamed else None)
        task = asyncio.create_task(ask)
        if is_streamed:
            await heard.wait()
        for _ in range(3):  # it is computed while these are
            await engine.complete(short)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(100):
            await engine.complete(short)  # the counts are those of the last step
            num_running, tokens = await counted(server)
            if not num_running:
                break
        assert num_running == 0
        assert tokens - tokens_before < 1900  # it has not just come to its end


async def test_hints_and_priority_are_taken(server: Server) -> None:
    hints = {"helium_session": 1, "helium_ended": [2, 3], "helium_kept_tokens": [0, 32]}
    request = Request("r", (ChatMessage("user", "a"),), (), Sampling(2), hints=hints, priority=5)
    async with OpenAIServer(server.url, MODEL_NAME) as engine:
        assert (await engine.complete(request)).output_tokens == 2


async def test_hints_decide_what_is_evicted(server: Server) -> None:
    """The server's scheduler is ours: `--scheduler-cls`, as docs/servers.md has it."""
    num_tokens = KV_TOKENS * 10 // 32
    async with OpenAIServer(server.url, MODEL_NAME) as engine:
        left = []
        for hints in ({}, {"helium_ended": ["b"], "helium_kept_tokens": [0]}):
            await server.reset_prefix_cache()
            left.append(await left_of_the_first(engine, num_tokens, **hints))
    assert left[0] < num_tokens / 2 and left[1] >= num_tokens - 32


Word = Annotated[str, Field(pattern="^[a-z ]{1,12}$")]


def search(query: Word, limit: Literal[1, 2, 3] = 1) -> str:
    """Search the archive."""
    return f"{limit} found for {query}"


def forecast(city: Word) -> str:
    """The weather of tomorrow."""
    return f"rain in {city}"


@pytest.mark.parametrize("choice", ["required", "forecast", "auto", "none"])
async def test_tools_are_called(server: Server, engine: VLLM, choice: str) -> None:
    """With and without a tokenizer, streamed and not, with their results in a second turn."""

    async def turns(asked: VLLM | OpenAIServer, *, is_streamed: bool) -> list[Any]:
        tools, is_forced = [search, forecast], choice in ("required", "forecast")
        options = {"tool_choice": choice, "max_tokens": 200 if is_forced else 24}
        history, found = [user("Find out about tomorrow.")], []
        async with Session(asked):
            for _ in range(2):
                call = llm(*history, tools=tools, **options)
                heard = [text async for text in call.stream()] if is_streamed else []
                reply = await call
                assert not is_streamed or "".join(heard) == reply.text
                found.append(
                    (reply.text, [(c.name, c.arguments, c.error) for c in reply.tool_calls])
                )
                history += await run_tools(reply, tools) if reply.tool_calls else [assistant(reply)]
                history += [user("Go on.")]
        return found

    there = OpenAIServer(server.url, MODEL_NAME)
    for asked, same in ((there, [there, with_tokenizer(server)]), (engine, [engine])):
        expected = await turns(asked, is_streamed=False)
        for text, calls in expected:
            assert [error for _, _, error in calls if error] == []
            assert bool(calls) == (choice in ("required", "forecast")) and bool(text) != bool(calls)
        for each in same:
            assert await turns(each, is_streamed=True) == expected
            assert await turns(each, is_streamed=False) == expected


async def test_another_chat_template_is_noticed(server: Server, tmp_path: Path) -> None:
    directory = find_model("random").directory
    assert directory is not None
    for path in directory.glob("*.json"):
        text = path.read_text()
        if "chat_template" in text:
            found = json.loads(text)
            found["chat_template"] = "Be kind. " + found["chat_template"]
            text = json.dumps(found)
        (tmp_path / path.name).write_text(text)
    for path in directory.glob("*.jinja"):
        (tmp_path / path.name).write_text("Be kind. " + path.read_text())
    engine = OpenAIServer(server.url, MODEL_NAME, tokenizer=tmp_path)
    with pytest.raises(EngineStartError, match="renders a conversation otherwise than the server"):
        await engine.start()


async def test_a_run_outlives_a_server_that_is_killed(
    server: Server, engine: VLLM, tmp_path: Path
) -> None:
    @operator
    async def answer(number: int) -> str:
        first = await llm(user(f"Name {number} things."), max_tokens=12)
        return (await llm(user(f"{number}: better than {first.text}"), max_tokens=12)).text

    rows = list(range(40))
    async with Session(engine) as session:
        expected = [text async for text in session.map(answer, rows)]
    remote = with_tokenizer(server, weights="seeded")
    got: list[str] = []
    new = server
    async with Session(remote, memo=tmp_path / "memo", max_open=8) as session:
        with pytest.warns(RuntimeWarning, match="died .* nobody answers at"):
            async for text in session.map(answer, rows):
                got.append(text)
                if len(got) == 5:
                    await server.kill()
                    new = Server(command_line(), server.port)
                    starting = asyncio.create_task(new.start())
        await starting
        assert got == expected
        assert session.summary.num_computed == 80
    try:
        async with Session(with_tokenizer(new, weights="seeded"), memo=tmp_path / "memo") as again:
            assert list(await gather(*map(answer, rows))) == expected
            assert again.summary.num_computed == 0
    finally:
        await new.close()
