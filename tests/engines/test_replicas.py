"""Replicas: one model on several engines, together as one, and routed by prefix and load."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents import Replicas, Session
from helium_agents.engines.engine import Capacity, ChatMessage, Choice, Request, Sampling
from helium_agents.engines.replicas import Router
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import EngineDied, EngineError, EngineStartError

CAPACITY = Capacity(1024, 16, max_model_tokens=512, max_requests=8)


def request(prompt: list[int], max_tokens: int = 16) -> Request:
    messages = (ChatMessage("user", "q"),)
    return Request("id", messages, prompt, Sampling(max_tokens=max_tokens))


def echoing(count: int = 2, **options: Any) -> tuple[list[ScriptedEngine], Replicas]:
    def script(asked: Request) -> str:
        return asked.messages[-1].content

    engines = [ScriptedEngine(script, **options) for _ in range(count)]
    return engines, Replicas(engines)


class Held(ScriptedEngine):
    """An engine that starts when the test lets it, or fails to."""

    def __init__(self, script: Any = None, error: Exception | None = None, **options: Any) -> None:
        super().__init__(script, **options)
        self.may_start = asyncio.Event()
        self.error = error

    async def start(self) -> None:
        await self.may_start.wait()
        if self.error is not None:
            raise self.error
        await super().start()


# --- as one engine -------------------------------------------------------------------------------


async def test_together_they_hold_the_sum() -> None:
    one = ScriptedEngine(capacity=CAPACITY, name="small")
    two = ScriptedEngine(capacity=Capacity(2048, 16, max_model_tokens=256, max_requests=4))
    replicas = Replicas([one, two])
    assert (replicas.name, replicas.identity()) == ("small", "scripted")
    assert (replicas.is_started, replicas.capacity) == (False, None)
    await replicas.start()
    assert replicas.capacity == Capacity(3072, 16, max_model_tokens=256, max_requests=12)
    await two.close()
    assert (replicas.is_started, replicas.capacity) == (True, CAPACITY)
    await replicas.start()
    assert (one.num_starts, two.num_starts) == (1, 2)
    await replicas.close()
    await replicas.close()
    assert not (one.is_started or two.is_started or replicas.is_started)


async def test_no_limit_of_one_is_no_limit_of_all() -> None:
    replicas = Replicas([ScriptedEngine(), ScriptedEngine(capacity=CAPACITY)])
    await replicas.start()
    assert replicas.capacity is None


async def test_blocks_of_different_sizes_are_refused() -> None:
    other = ScriptedEngine(capacity=Capacity(1024, 32, max_model_tokens=512, max_requests=8))
    replicas = Replicas([ScriptedEngine(capacity=CAPACITY), other])
    await replicas.start()
    with pytest.raises(EngineStartError, match=r"blocks of \[16, 32\] tokens.*same block_size"):
        assert replicas.capacity


async def test_other_models_are_refused() -> None:
    replicas = Replicas([ScriptedEngine(), ScriptedEngine(identity="another")])
    with pytest.raises(EngineStartError, match=r"have 2 identities.*the same model"):
        async with Session(replicas):
            pass


def test_none_and_twice_the_same_are_refused() -> None:
    engine = ScriptedEngine()
    with pytest.raises(ValueError, match="at least one"):
        Replicas([])
    with pytest.raises(ValueError, match="twice"):
        Replicas([engine, engine])
    assert repr(Replicas([VLLM()])) == "Replicas([VLLM('embedded')])"


async def test_they_start_at_the_same_time_and_all_or_none() -> None:
    good, bad = Held(), Held(error=EngineStartError("no such device"))
    started = ScriptedEngine()
    await started.start()
    starting = asyncio.ensure_future(Replicas([started, good, bad]).start())
    good.may_start.set()
    while not good.is_started:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    bad.may_start.set()
    with pytest.raises(EngineStartError, match="no such device"):
        await starting
    assert (started.is_started, good.is_started) == (True, False)


async def test_used_without_a_session() -> None:
    engines, replicas = echoing()
    with pytest.raises(EngineError, match="no replica of 'scripted' is started"):
        await replicas.render([])
    await replicas.start()
    prompt = await replicas.render([ChatMessage("user", "a b")])
    assert len(prompt) == 3
    answers = await asyncio.gather(*(replicas.complete(request(list(prompt))) for _ in range(6)))
    assert {answer.choices[0].text for answer in answers} == {"q"}
    assert [engine.num_requests for engine in engines] == [3, 3]
    cut = replicas.truncate(Choice("a b", (1, 2), "stop"), 1)
    assert cut is not None and cut.text == "a"
    engines[0].die()
    with pytest.raises(EngineDied):
        await asyncio.gather(*(replicas.complete(request(list(prompt))) for _ in range(2)))
    await replicas.start()
    assert [engine.num_starts for engine in engines] == [2, 1]
    await replicas.close()


# --- routing -------------------------------------------------------------------------------------


def test_equal_load_goes_round() -> None:
    router, held = Router(3), []
    for _ in range(6):
        scope = router.routed(request([1] * 10), range(3))
        held.append((scope, scope.__enter__()))
    assert [index for _, index in held] == [0, 1, 2, 0, 1, 2]
    for scope, _ in held:
        scope.__exit__(None, None, None)
    assert router._open_tokens == [0, 0, 0]


def test_a_prompt_goes_where_its_longest_prefix_went() -> None:
    router = Router(2)
    shared, long = [7] * 64, [7] * 64 + [8] * 64
    with router.routed(request(shared), [1]):
        pass
    with router.routed(request([9] * 64), [0]):
        pass
    with router.routed(request(long), [0, 1]) as index:
        assert index == 1
    with router.routed(request([9] * 64 + [1]), [0, 1]) as index:
        assert index == 0
    with router.routed(request([*long, *[5] * 200]), [0]):  # as if 1 were down
        pass
    with router.routed(request([*long, 6]), [0, 1]) as index:
        assert index == 0, "128 tokens were there last"
    with router.routed(request([1] * 20), [0, 1]) as index:
        assert index == 1, "too short to have a place, so it goes where less was sent"


def test_a_prefix_is_not_worth_a_longer_queue() -> None:
    router = Router(2)
    with router.routed(request([7] * 64), [0]):
        pass
    with router.routed(request([1] * 100), [0]), router.routed(request([7] * 64), [0, 1]) as index:
        assert index == 1


def test_what_a_dead_one_had_is_forgotten() -> None:
    router = Router(2)
    with router.routed(request([7] * 64), [1]):
        pass
    router.forget(1)
    with router.routed(request([7] * 64), [0, 1]) as index:
        assert index == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_no_replica_is_ahead_by_more_than_a_prompt(seed: int, count: int) -> None:
    draws, router = random.Random(seed), Router(count)
    stems = [[stem] * draws.randrange(0, 300) for stem in range(5)]
    for _ in range(60):
        prompt = draws.choice(stems) + [draws.randrange(99) for _ in range(draws.randrange(1, 90))]
        live = draws.sample(range(count), draws.randint(1, count))
        scope = router.routed(request(prompt), live)
        before = list(router._open_tokens)
        index = scope.__enter__()
        assert index in live
        assert before[index] - min(before[i] for i in live) <= len(prompt)
        if draws.random() < 0.7:
            scope.__exit__(None, None, None)
