"""An engine with nothing but what the port requires: all works that needs no more."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from helium_agents import MemoryStore, Replicas, Session, gather, llm, operator, user
from helium_agents.diagnose.replay import replay
from helium_agents.engines.engine import (
    Capacity,
    ChatMessage,
    Choice,
    Completion,
    Delta,
    OnDelta,
    Request,
)
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.whole_engine import WholeEngine
from helium_agents.errors import (
    EngineDied,
    EngineError,
    RequestError,
    SessionError,
    TokenBudgetExceeded,
)
from helium_agents.memo.run_log import RunLog


class Echo:
    """Says the last message again: a hosted model, played in this process."""

    name = "echo"

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def identity(self) -> str:
        return "echo 1"

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        self.asked.append(request)
        await asyncio.sleep(0)
        words = request.messages[-1].content.split()
        said = words[: request.sampling.max_tokens]
        choice = Choice(" ".join(said), (), "stop" if said == words else "length")
        choices = (choice,) * request.sampling.n
        return Completion(choices, prompt_tokens=len(words), output_tokens=len(said))


@operator
async def twice(text: str) -> str:
    first, second = await gather(llm(user(text)), llm(user(text)))
    return (await llm(user(f"{first} {second}"))).text


# --- what works ----------------------------------------------------------------------------------


async def test_calls_are_merged_remembered_and_counted() -> None:
    engine, store = Echo(), MemoryStore()
    async with Session(engine, memo=store) as session:
        assert [r async for r in session.map(twice, ["a b", "c", "a b"])] == [
            "a b a b",
            "c c",
            "a b a b",
        ]
    summary = session.summary
    assert len(engine.asked) == summary.num_computed == 4
    assert (summary.prompt_tokens, summary.output_tokens) == (9, 9)
    async with Session(engine, memo=store, memo_mode="replay-only") as session:
        assert [r async for r in session.map(twice, ["a b", "c"])] == ["a b a b", "c c"]
    assert len(engine.asked) == 4
    assert (session.summary.saved_prompt_tokens, session.summary.saved_output_tokens) == (12, 12)


async def test_a_resumed_run_gives_each_draw_the_answer_that_it_had(tmp_path: Any) -> None:
    async def draws(text: str) -> list[str]:
        return [r.text for r in await gather(*(llm(user(text), temperature=1) for _ in "ab"))]

    engine = Echo()
    for _ in range(2):
        with RunLog(tmp_path / "log") as log:
            async with Session(engine, run_log=log) as session:
                assert [r async for r in session.map(draws, ["a", "b"])] == [["a"] * 2, ["b"] * 2]
    assert len(engine.asked) == 4


async def test_an_answer_is_not_cut_and_serves_its_own_limit_alone() -> None:
    engine, store = Echo(), MemoryStore()
    for _ in range(2):
        async with Session(engine, memo=store, record=True) as session:
            asked = [llm(user("one two three"), max_tokens=limit) for limit in (2, 8, 512)]
            replies = await gather(*asked)
            assert [reply.text for reply in replies] == ["one two", *["one two three"] * 2]
            assert (await llm(user("one two three"), max_tokens=1)).text == "one"
            assert "start of" not in session.explain(optimized=True)
    assert sorted(request.sampling.max_tokens for request in engine.asked) == [1, 2, 8, 512]


async def test_a_stream_of_one_that_does_not_stream_comes_at_the_end() -> None:
    async with Session(Echo()):
        assert [text async for text in llm(user("a b")).stream()] == ["a b"]


async def test_a_stream_of_one_that_does_comes_in_pieces() -> None:
    class Streaming(Echo):
        async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
            if on_delta is not None:
                on_delta(Delta(0, "a"))
                on_delta(Delta(0, " b"))
            return await super().complete(request)

    async with Session(Streaming()):
        assert [text async for text in llm(user("a b")).stream()] == ["a", " b"]


async def test_one_that_follows_schemas_says_so() -> None:
    class Following(Echo):
        follows_schemas = True

    async with Session(Following()):
        assert (await llm(user("3"), schema=int)).parsed == 3


async def test_one_with_a_capacity_gets_so_many_at_once() -> None:
    class Small(Echo):
        capacity = Capacity(1024, 16, max_model_tokens=512, max_requests=1)
        num_open = most_open = 0

        async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
            self.num_open += 1
            self.most_open = max(self.most_open, self.num_open)
            try:
                return await super().complete(request)
            finally:
                self.num_open -= 1

    small = Small()
    async with Session(small):
        await gather(*(llm(user(str(number))) for number in range(40)))
    assert small.most_open == 9 < 40  # a slot, and a short queue


async def test_replicas_get_equal_shares() -> None:
    engines = [Echo(), Echo()]
    async with Session(Replicas(engines)) as session:
        assert len([r async for r in session.map(lambda t: llm(user(t)), map(str, range(8)))]) == 8
    assert [len(engine.asked) for engine in engines] == [4, 4]


async def test_a_death_is_outlived_though_nothing_is_started() -> None:
    class Mortal(Echo):
        async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
            completion = await super().complete(request)
            if len(self.asked) == 1:
                raise EngineDied("the connection is gone")
            return completion

    engine = Mortal()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with Session(engine):
            assert (await llm(user("a"))).text == "a"
    assert (len(caught), len(engine.asked)) == (1, 2)


async def test_a_miss_is_explained() -> None:
    replayed = await replay(twice, "a", Echo(), MemoryStore())
    assert (replayed.num_found, len(replayed.misses)) == (0, 1)


async def test_what_is_remembered_is_found_by_who_explains() -> None:
    store = MemoryStore()
    async with Session(Echo(), memo=store) as session:
        await session.run(twice, "a")
    replayed = await replay(twice, "a", Echo(), store)
    assert (replayed.num_found, replayed.misses) == (3, ())


# --- what does not, and says so ------------------------------------------------------------------


async def test_a_schema_names_the_missing_ability() -> None:
    engine = Echo()
    async with Session(engine):
        with pytest.raises(RequestError, match=r"schema=.*'echo' does not follow schemas"):
            await llm(user("3"), schema=int)
    assert engine.asked == []


async def test_a_token_budget_counts_prompts_when_they_are_answered() -> None:
    async with Session(Echo(), token_budget=100):
        await llm(user("a b"), max_tokens=90)
        with pytest.raises(TokenBudgetExceeded, match="4 of the token budget of 100 are used"):
            await llm(user("c"), max_tokens=97)


async def test_too_few_answers_are_noticed() -> None:
    class One(Echo):
        async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
            completion = await super().complete(request)
            return completion._replace(choices=completion.choices[:1])

    async with Session(One()):
        with pytest.raises(EngineError, match="'echo' gave 1 answers in place of 3"):
            await llm(user("a"), n=3, temperature=1)


def test_what_is_required_is_named() -> None:
    class Nothing:
        name = "nothing"

    with pytest.raises(SessionError, match=r"Nothing\(...\) is no engine, it has no identity, com"):
        Session(Nothing())  # type: ignore[arg-type]


def test_an_ability_is_found_behind_a_wrapper_too() -> None:
    class Wrapper:
        def __getattr__(self, name: str) -> Any:
            return getattr(ScriptedEngine(), name)

    wrapped, bare = WholeEngine(Wrapper()), WholeEngine(Echo())
    assert wrapped.truncates and not bare.truncates
    assert not wrapped.is_started and bare.is_started
    assert wrapped.follows_schemas and not bare.follows_schemas


async def test_what_stands_for_a_missing_ability_does_nothing() -> None:
    bare = WholeEngine(Echo())
    await bare.start()
    await bare.close()
    assert await bare.render([ChatMessage("user", "a b")]) == ()
    assert bare.truncate(Choice("a b", (), "stop"), 1) is None
    assert (bare.capacity, bare.cost, bare.takes_hints, bare.identity_parts()) == (
        None,
        None,
        False,
        {},
    )
