"""A fleet: a session's calls over replicas, each of which starts, dies and is restarted alone."""

from __future__ import annotations

import asyncio
import random
import warnings
from typing import Any

import pytest
from gate import Gate, ticks, until

from helium_agents import Replicas, Session, gather, llm, system, user
from helium_agents.engines.engine import Capacity, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import EngineStartError
from helium_agents.runtime.fleet.fleet import Fleet
from helium_agents.telemetry.events import EngineLost, EngineStarted, Event

pytestmark = pytest.mark.usefixtures("quiet_loop")


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


async def test_a_session_uses_all_and_remembers_as_one() -> None:
    engines, replicas = echoing(3, latency_s=0.001)
    events: list[Event] = []
    async with Session(replicas, observers=[events.append]) as session:
        results = [r async for r in session.map(lambda t: llm(user(t)), list("abcdefghi"))]
    assert "".join(reply.text for reply in results) == "abcdefghi"
    assert all(engine.num_requests for engine in engines)
    assert sum(engine.num_requests for engine in engines) == 9
    started = [event.model for event in events if isinstance(event, EngineStarted)]
    assert sorted(started) == [f"scripted (replica {number} of 3)" for number in (1, 2, 3)]
    assert not any(engine.is_started for engine in engines)


async def test_calls_with_a_common_start_stay_together() -> None:
    engines, replicas = echoing()
    stems = [" ".join([name] * 200) for name in "ab"]
    async with Session(replicas):
        for number in range(6):
            for stem in stems:
                await llm(system(stem), user(str(number)), max_tokens=8)
    for engine in engines:
        assert len({asked.messages[0].content for asked in engine.requests}) <= 1
    assert sum(engine.num_requests for engine in engines) == 12


async def test_the_first_that_is_started_serves_at_once() -> None:
    quick, slow = ScriptedEngine(lambda _: "quick"), Held(lambda _: "slow")
    async with Session(Replicas([slow, quick])):
        assert (await llm(user("q"))).text == "quick"
        assert not slow.is_started
        slow.may_start.set()
        await until(lambda: slow.is_started)


def slots(kv_tokens: int, max_model_tokens: int, max_requests: int) -> Capacity:
    return Capacity(kv_tokens, 16, max_model_tokens, max_requests)


async def test_those_that_are_started_hold_together_what_each_does() -> None:
    small, large = slots(1024, 512, 8), slots(2048, 256, 4)
    engines = [Held(capacity=small), Held(capacity=large)]
    fleet = Fleet(engines, spawn=asyncio.create_task, emit=lambda _: None)
    assert fleet.capacity is None
    engines[0].may_start.set()
    await fleet.render(())
    assert fleet.capacity == small
    engines[1].may_start.set()
    await until(lambda: engines[1].is_started)
    assert fleet.capacity == slots(3072, 256, 12)


async def test_no_limit_of_one_is_no_limit_of_all() -> None:
    engines = [ScriptedEngine(), ScriptedEngine(capacity=slots(1024, 512, 8))]
    fleet = Fleet(engines, spawn=asyncio.create_task, emit=lambda _: None)
    for engine in engines:
        await engine.start()
    await fleet.render(())
    assert fleet.capacity is None


async def test_other_models_are_refused() -> None:
    replicas = Replicas([ScriptedEngine(), ScriptedEngine(identity="another")])
    with pytest.raises(EngineStartError, match=r"have 2 identities.*the same model"):
        async with Session(replicas):
            pass


async def test_a_dead_one_is_restarted_while_the_others_serve() -> None:
    gate = Gate()
    mortal, other = Held(gate), ScriptedEngine(gate)
    mortal.may_start.set()
    events: list[Event] = []
    async with Session(Replicas([mortal, other]), observers=[events.append]):
        calls = [llm(user(str(number))).start() for number in range(6)]
        await until(lambda: mortal.num_open == other.num_open == 3)
        mortal.may_start.clear()
        with pytest.warns(RuntimeWarning, match=r"replica 1 of 2\)' died .*open requests: 3"):
            mortal.die()
            await until(lambda: other.num_open == 6)
        gate.open()
        assert [reply.text for reply in await gather(*calls)] == list("012345")
        assert mortal.num_starts == 1, "it is still starting"
        mortal.may_start.set()
        await until(lambda: mortal.num_starts == 2)
        await gather(*(llm(user(f"again {number}")) for number in range(4)))
    assert mortal.num_requests > 3
    assert sum(isinstance(event, EngineLost) for event in events) == 1


async def test_one_that_does_not_start_is_given_up_with_a_warning() -> None:
    bad = Held(error=EngineStartError("no such device"))
    bad.may_start.set()
    good = Held(lambda asked: asked.messages[-1].content)
    async with Session(Replicas([bad, good])):
        with pytest.warns(RuntimeWarning, match="replica 1 of 2.* is given up, .*no such device"):
            call = llm(user("a")).start()
            await ticks()
            good.may_start.set()
            assert (await call).text == "a"


async def test_where_none_starts_the_run_ends() -> None:
    engines = [Held(error=EngineStartError(f"no device {number}")) for number in range(2)]
    for engine in engines:
        engine.may_start.set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        async with Session(Replicas(engines)) as session:
            with pytest.raises(EngineStartError, match="no device"):
                _ = [r async for r in session.map(lambda t: llm(user(t)), "ab", on_error="collect")]


async def test_five_deaths_here_and_there_change_nothing() -> None:
    draws = random.Random(3)

    async def script(asked: Request) -> str:
        for _ in range(draws.randrange(9)):
            await asyncio.sleep(0)
        if sum(engine.num_deaths for engine in engines) < 5 and draws.random() < 0.05:
            draws.choice(engines).die()
        return f"echo of {asked.messages[-1].content}"

    engines = [ScriptedEngine(script) for _ in range(3)]
    rows = [str(number) for number in range(200)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with Session(Replicas(engines)) as session:
            results = [r.text async for r in session.map(lambda t: llm(user(t)), rows)]
    assert results == [f"echo of {row}" for row in rows]
    assert sum(engine.num_deaths for engine in engines) == 5
    # one that died idle and was not needed again is nobody's loss
    assert 3 <= len(caught) == sum(engine.num_starts for engine in engines) - 3
    assert not any(engine.is_started for engine in engines)
