"""The token budget: kept by reservation, never exceeded, given back where it was not used."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gate import Gate, ticks, until
from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents import ItemError, MemoryStore, Session, gather, llm, operator, system, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import RequestError, SessionError, TokenBudgetExceeded

# In these tests a prompt `user("q")` has two tokens: one for the role, one for the word.
PROMPT = 2


def two_words() -> ScriptedEngine:
    return ScriptedEngine(lambda request: "two words")


async def test_counts_prompt_and_output() -> None:
    engine = two_words()
    async with Session(engine, token_budget=PROMPT + 10) as session:
        await llm(user("q"), max_tokens=10)
        with pytest.raises(
            TokenBudgetExceeded,
            match="may need 12 tokens, but 4 of the token budget of 12 are used",
        ):
            await llm(user("r"), max_tokens=10)
        await llm(user("r"), max_tokens=6)
        assert engine.num_requests == 2
        summary = session.summary
        assert summary.prompt_tokens + summary.output_tokens == 8


async def test_counts_every_answer_of_a_call() -> None:
    engine = two_words()
    async with Session(engine, token_budget=PROMPT + 3 * 4):
        with pytest.raises(TokenBudgetExceeded, match="need 17 tokens"):
            await llm(user("q"), max_tokens=5, n=3, temperature=1)
        await llm(user("q"), max_tokens=4, n=3, temperature=1)
        with pytest.raises(TokenBudgetExceeded, match="8 of the token budget of 14"):
            await llm(user("q"), max_tokens=5)


async def test_counts_what_is_computed_not_what_is_shared_or_remembered() -> None:
    with_store = MemoryStore()
    async with Session(two_words(), memo=with_store):
        await llm(user("known"))
    engine = two_words()
    async with Session(engine, memo=with_store, token_budget=PROMPT + 256):
        await llm(user("known"))
        await gather(*(llm(user("q")) for _ in range(5)))
        await llm(user("q"), max_tokens=1)
    assert engine.num_requests == 1


async def test_a_call_waits_for_what_others_hold() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine, token_budget=30):
        first = llm(user("a"), max_tokens=20).start()
        second = llm(user("b"), max_tokens=20).start()
        await until(lambda: engine.num_open)
        await ticks()
        assert engine.num_requests == 1
        gate.open()
        assert (await first).text == "a"
        assert (await second).text == "b"
    assert engine.most_open == 1


async def test_a_call_that_can_never_fit_does_not_wait_for_ever() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine, token_budget=30):
        first = llm(user("a"), max_tokens=20).start()
        await until(lambda: engine.num_open)
        second = llm(user("b"), max_tokens=60).start()
        await ticks()
        gate.open()
        with pytest.raises(TokenBudgetExceeded):
            await second
        assert (await first).text == "a"


async def test_a_failed_or_cancelled_call_gives_back_what_it_held() -> None:
    gate = Gate()

    async def script(request: Request) -> str:
        if request.messages[-1].content == "boom":
            raise RequestError("no")
        return await gate(request)

    engine = ScriptedEngine(script)
    async with Session(engine, token_budget=30):
        for _ in range(3):
            with pytest.raises(RequestError):
                await llm(user("boom"), max_tokens=20)
        held = asyncio.ensure_future(llm(user("a"), max_tokens=20))
        await until(lambda: engine.num_open)
        waiting = llm(user("b"), max_tokens=20).start()
        await ticks()
        assert engine.num_open == 1
        held.cancel()
        gate.open()
        assert (await waiting).text == "b"


async def test_a_waiting_call_can_be_cancelled() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine, token_budget=30):
        first = llm(user("a"), max_tokens=20).start()
        await until(lambda: engine.num_open)
        waiting = asyncio.ensure_future(llm(user("b"), max_tokens=20))
        await ticks()
        waiting.cancel()
        await ticks()
        assert waiting.cancelled()
        third = llm(user("c"), max_tokens=20).start()
        gate.open()
        await gather(first, third)
    assert engine.num_requests == 2


@operator
async def answer(row: str) -> str:
    return (await llm(user(row), max_tokens=10)).text


async def test_it_ends_a_map_even_where_errors_are_collected() -> None:
    engine = two_words()
    found: list[Any] = []
    async with Session(engine, token_budget=20) as session:
        with pytest.raises(TokenBudgetExceeded):
            async for result in session.map(answer, map(str, range(50)), on_error="collect"):
                found.append(result)
    assert found and not [result for result in found if isinstance(result, ItemError)]
    assert engine.num_requests == len(found) == 3  # 4 each; the fourth may need 12 of the 8 left


@pytest.mark.parametrize("tokens", [0, -1])
def test_it_must_be_positive(tokens: int) -> None:
    with pytest.raises(SessionError, match="token_budget"):
        Session(ScriptedEngine(), token_budget=tokens)


class Meter(ScriptedEngine):
    """Checks at every moment that what is open and what is done fit in the budget."""

    limit = 0
    held = 0

    async def complete(self, request: Request, on_delta: Any = None) -> Any:
        most = len(request.prompt_token_ids) + request.sampling.n * request.sampling.max_tokens
        self.held += most
        assert self.held <= self.limit
        completion = await super().complete(request, on_delta)
        used = sum(len(choice.token_ids) for choice in completion.choices)
        self.held += len(request.prompt_token_ids) + used - most
        return completion


calls = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 12)), max_size=10)


@settings(max_examples=40, deadline=None)
@given(calls, st.integers(1, 60))
def test_it_is_never_exceeded_and_calls_that_pass_are_as_without_it(
    asked: list[tuple[str, int]], limit: int
) -> None:
    async def ask(engine: ScriptedEngine, **options: Any) -> Any:
        async with Session(engine, **options) as session:
            refs = [
                llm(system("s"), user(text), max_tokens=length, share=False)
                for text, length in asked
            ]
            return await gather(*refs, return_exceptions=True), session.summary

    engine = Meter()
    engine.limit = limit
    found, summary = asyncio.run(ask(engine, token_budget=limit))
    plain, _ = asyncio.run(ask(ScriptedEngine()))
    for result, expected in zip(found, plain, strict=True):
        assert isinstance(result, TokenBudgetExceeded) or result == expected
    assert summary.prompt_tokens + summary.output_tokens <= limit
