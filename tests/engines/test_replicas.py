"""Replicas: one model on several engines, together as one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from helium_agents import Replicas, Session
from helium_agents.engines.engine import Capacity
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import EngineStartError

CAPACITY = Capacity(1024, 16, max_model_tokens=512, max_requests=8)


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
