"""What vLLM's scheduler makes of hints, in an engine of its own that holds little."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from helium_agents import VLLM, Session, llm, operator, user
from helium_agents.engines.engine import Request
from helium_agents.graph.sampling import Sampling
from helium_agents.optimizer.park import Park
from helium_agents.optimizer.schedule import EverythingOpen, Schedule
from helium_agents.telemetry.events import CallSettled, Event
from tests.conftest import started
from tests.engines.evicted import left_of_the_first

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]

KV_TOKENS = 2048
PROMPT_TOKENS = 640


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(cache_home: Path) -> AsyncIterator[VLLM]:
    async with started(VLLM("random", kv_tokens=KV_TOKENS, max_model_tokens=KV_TOKENS)) as engine:
        yield engine


async def cached_tokens(engine: VLLM, **hints: list[str] | list[int]) -> int:
    await engine.reset_prefix_cache()
    return await left_of_the_first(engine, PROMPT_TOKENS, **hints)


async def test_what_an_ended_session_left_goes_first(small: VLLM) -> None:
    assert small.takes_hints
    assert await cached_tokens(small) < PROMPT_TOKENS / 2, "what was used longest ago"
    ended = await cached_tokens(small, helium_ended=["b"], helium_kept_tokens=[0])
    assert ended >= PROMPT_TOKENS - 32
    shared = await cached_tokens(small, helium_ended=["b"], helium_kept_tokens=[PROMPT_TOKENS])
    assert shared < PROMPT_TOKENS / 2, "others share all of it"
    assert await cached_tokens(small, helium_ended=["nobody"]) < PROMPT_TOKENS / 2


async def test_what_a_request_leaves_that_nobody_will_use_goes_first(small: VLLM) -> None:
    async def left_unless_used(used_tokens: int | None) -> int:
        """Two prompts fill the cache; a third evicts something. What is left of the first?"""
        await small.reset_prefix_cache()
        for name, used in (("a", None), ("b", used_tokens), ("c", None), ("d", None)):
            prompt = [500 + 97 * ord(name) % 1000 + number % 50 for number in range(PROMPT_TOKENS)]
            request = Request(name, (), prompt, Sampling(max_tokens=1))
            request.hints = None if used is None else {"helium_used_tokens": used}
            await small.complete(request)
        prompt = [500 + 97 * ord("a") % 1000 + number % 50 for number in range(PROMPT_TOKENS)]
        again = Request("a2", (), prompt, Sampling(max_tokens=1))
        return (await small.complete(again)).cached_tokens

    assert await left_unless_used(None) < PROMPT_TOKENS / 2
    assert await left_unless_used(PROMPT_TOKENS) < PROMPT_TOKENS / 2
    assert await left_unless_used(0) >= PROMPT_TOKENS - 32


async def test_its_scheduler_tells_what_steps_take(small: VLLM) -> None:
    for number in range(30):
        prompt = [300 + number] * 40
        await small.complete(Request(f"steps-{number}", (), prompt, Sampling(max_tokens=8)))
    assert small._engine is not None
    sums = small._engine.launched.steps.read()
    assert sums is not None
    assert sums.num_steps > 100
    assert small._cost is not None
    assert small.cost is not None
    assert small.cost.step_s == pytest.approx(sums.corrected(small._cost).step_s, rel=0.1)


@pytest.mark.slow
async def test_whatever_is_hinted_answers_are_the_same_where_little_fits(small: VLLM) -> None:
    """Prompts that share beginnings, of which few fit; hints that are wrong, and requests left."""
    draws = random.Random(3)

    def asked(number: int) -> Request:
        session, turn = draws.randrange(12), draws.randrange(1, 5)
        prompt = [3] * 64 + [100 + session] * 60 + [200 + 7 * session + turn] * (turn * 60)
        return Request(f"{number}", (), prompt, Sampling(max_tokens=draws.randrange(1, 24)))

    requests = [asked(number) for number in range(160)]

    async def answer(request: Request, hints: dict[str, Any] | None, leaves: bool) -> Any:
        known = replace(request, request_id=f"{request.request_id}-{hints is None}", hints=hints)
        task = asyncio.ensure_future(small.complete(known))
        if leaves:
            await asyncio.sleep(0.05 * draws.random())
            task.cancel()
            await asyncio.wait([task])
            return None
        return (await task).choices

    async with asyncio.timeout(300):
        await small.reset_prefix_cache()
        plain = await asyncio.gather(*(answer(request, None, False) for request in requests))
        await small.reset_prefix_cache()  # which fails where a block is not given back
        tasks = []
        for number, request in enumerate(requests):
            hints = {"helium_session": draws.randrange(12)} | draws.choice(
                [
                    {},
                    {"helium_used_tokens": draws.choice([0, 64, 100, 10_000, -1])},
                    {"helium_ended": [draws.randrange(12), 99, "x", None]},
                    {"helium_ended": [draws.randrange(12)], "helium_kept_tokens": [64]},
                ]
            )
            tasks.append(asyncio.create_task(answer(request, hints, number % 8 == 7)))
            if number % 20 == 19:
                await asyncio.sleep(0.3)
        hinted = await asyncio.gather(*tasks)
        await small.reset_prefix_cache()
    answered = [number for number, found in enumerate(hinted) if found is not None]
    assert len(answered) >= 140
    assert [hinted[number] for number in answered] == [plain[number] for number in answered]
    assert len(set(plain)) > 40, "or equality would prove nothing"


@operator
async def agent(number: int) -> list[str]:
    """Six turns, each with a tool's result after the last answer, some of them slow."""
    text, answers = f"You are agent {number}. " + "Think about the rain. " * 12, []
    for turn in range(6):
        reply = await llm(user(text), max_tokens=8)
        answers.append(reply.text)
        await asyncio.sleep(0.02 * ((number + turn) % 4))
        text += f"{reply.text}\nThe tool says {number * turn}: " + "and so it went on, " * 10
    return answers


async def test_agents_get_their_answers_whatever_is_dropped(small: VLLM) -> None:
    cached: list[int] = []

    def observe(event: Event) -> None:
        if isinstance(event, CallSettled):
            cached.append(event.usage.cached_tokens)

    async def answers(schedule: Schedule) -> list[list[str]]:
        cached.clear()
        await small.reset_prefix_cache()
        session = Session(small, schedule=schedule, share=False, observers=[observe])
        async with asyncio.timeout(300), session:
            return [each async for each in session.map(agent, range(10))]

    plain, num_cached = await answers(EverythingOpen()), sum(cached)
    assert len({tuple(each) for each in plain}) == 10
    assert await answers(Park()) == plain
    assert sum(cached) > num_cached, "less was computed again"
