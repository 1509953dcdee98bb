"""Draws: each attempt of a sampled call is a call of its own, and none gets into a pure result."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, field_validator

from helium_agents import MemoryStore, Ref, Session, gather, llm, operator, prompt, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import ImpureCall, InvalidReply

pytestmark = pytest.mark.usefixtures("quiet_loop")

PLAIN: dict[str, Any] = {"rules": (), "share": False, "memo": None}


class Number(BaseModel):
    value: int


class Small(BaseModel):
    # the same JSON schema as that of `Number`, and a validator that no key can know
    model_config = ConfigDict(title="Number")

    value: int

    @field_validator("value")
    @classmethod
    def check(cls, value: int) -> int:
        if value > 10:
            raise ValueError("too large")
        return value


def by_seed(request: Request) -> str:
    """Fits `Small` from seed 8 on, and `Number` always."""
    seed = request.sampling.seed
    assert seed is not None
    return f'{{"value": {5 if seed >= 8 else 50}}}'


async def outcome(ref: Ref[Any]) -> Any:
    try:
        return (await ref).parsed.value
    except InvalidReply:
        return "invalid"


def ask(schema: Any, retries: int, seed: int = 7) -> Ref[Any]:
    return llm(user("q"), schema=schema, temperature=1.0, seed=seed, retries=retries)


CALLS = [(Small, 0), (Small, 2), (Number, 0), (Number, 1), (Small, 1)]


@pytest.mark.parametrize("order", [CALLS, CALLS[::-1]])
@pytest.mark.parametrize("options", [{}, PLAIN])
async def test_retries_and_validators_decide_for_each_waiter(order: Any, options: Any) -> None:
    expected = {(Small, 0): "invalid", (Small, 2): 5, (Number, 0): 50, (Number, 1): 50}
    expected[Small, 1] = 5
    engine = ScriptedEngine(by_seed)
    async with Session(engine, **options):
        found = await gather(*(outcome(ask(*call)) for call in order))
    assert list(found) == [expected[call] for call in order]
    if not options:
        assert engine.num_requests == 2, "seeds 7 and 8, once each"


async def test_also_across_sessions() -> None:
    store = MemoryStore()
    for schema, retries, expected in ((Small, 0, "invalid"), (Small, 1, 5), (Number, 1, 50)):
        engine = ScriptedEngine(by_seed)
        async with Session(engine, memo=store):
            assert await outcome(ask(schema, retries)) == expected
        assert engine.num_requests == (0 if schema is Number else 1)
    store.close()


async def test_who_streams_gets_the_draw_that_fits() -> None:
    engine = ScriptedEngine(by_seed)
    async with Session(engine):
        ref = ask(Small, 1)
        pieces, reply = await gather(whole_stream(ref), outcome(ask(Small, 1)))
        assert pieces == '{"value": 5}' and reply == 5
        assert (await ref).parsed.value == 5
    assert engine.num_requests == 2


async def whole_stream(ref: Ref[Any]) -> str:
    return "".join([piece async for piece in ref.stream()])


@pytest.mark.parametrize("options", [{}, PLAIN])
async def test_a_call_that_draws_again_as_an_input(options: Any) -> None:
    def script(request: Request) -> str:
        return by_seed(request) if request.sampling.seed else request.messages[-1].content

    async with Session(ScriptedEngine(script), **options):
        first, second = ask(Small, 1), ask(Number, 1)
        texts = await gather(*(llm(user(prompt("{it}", it=ref))) for ref in (first, second)))
    assert [reply.text for reply in texts] == ['{"value": 5}', '{"value": 50}']


async def test_unseeded_draws_are_drawn_anew_and_stay_apart() -> None:
    texts = iter(["no number", '{"value": 50}', '{"value": 3}', '{"value": 4}'])
    async with Session(ScriptedEngine(lambda _: next(texts))) as session:
        first = await llm(user("q"), schema=Small, temperature=1.0, retries=2)
        second = await llm(user("q"), schema=Small, temperature=1.0, retries=2)
    assert (first.parsed.value, second.parsed.value) == (3, 4)
    assert session.summary.num_computed == 4


async def test_a_draw_made_outside_is_not_awaited_inside_a_pure_operator() -> None:
    refs: dict[str, Ref[Any]] = {}

    @operator
    async def impure() -> str:
        return "now"

    @operator(pure=True, version="1")
    async def pure(name: str) -> str:
        return str(await refs[name])

    store = MemoryStore()
    for _ in range(2):
        async with Session(ScriptedEngine(lambda _: "a"), memo=store):
            draw = llm(user("q"), temperature=1.0)
            refs |= {"draw": draw, "after": llm(user(prompt("{it}", it=draw))), "impure": impure()}
            for name, message in (
                ("draw", "depends on an unseeded sample"),
                ("after", "depends on an unseeded sample"),
                ("impure", "is not pure"),
            ):
                with pytest.raises(ImpureCall, match=message):
                    await pure(name)
            await gather(*refs.values())
            with pytest.raises(ImpureCall, match="depends on an unseeded sample"):
                await pure("draw")  # nor when its value is there
    store.close()


async def test_a_greedy_call_made_outside_may_be_awaited_inside() -> None:
    refs: list[Ref[Any]] = []

    @operator(pure=True, version="1")
    async def pure() -> str:
        return str(await refs[0])

    async with Session(ScriptedEngine(lambda _: "a")):
        refs.append(llm(user("q")))
        assert await pure() == "a"


async def test_calls_of_one_frame_keep_no_arguments() -> None:
    import tracemalloc

    @operator
    async def length(text: str, *more: Any) -> int:
        return len(text)

    async with Session(ScriptedEngine()):
        await length("warm")
        tracemalloc.start()
        for number in range(1000):
            await length(f"{number} " * 3000, [number])
        kept_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept_bytes < 3_000_000


async def test_equal_draws_of_operators_keep_their_answers_whatever_the_timing() -> None:
    """The rule of `graph.trace`: with an operator for each, timing decides nothing."""

    delays: dict[str, int] = {}

    @operator
    async def draws(name: str) -> str:
        for _ in range(delays[name]):
            await asyncio.sleep(0)
        return (await llm(user("q"), temperature=1.0)).text

    async def run(first: int, second: int) -> list[bytes]:
        delays.update(a=first, b=second)
        store = MemoryStore()
        async with Session(ScriptedEngine(), run_id="r", memo=store, record=True) as session:
            await gather(draws("a"), draws("b"))
            assert session._executed is not None
            asked = sorted(n.run_key for n in session._executed.nodes if n.label == "llm")
        store.close()
        return asked

    assert await run(0, 9) == await run(9, 0)


async def test_each_run_of_a_session_has_draws_of_its_own() -> None:
    async def draw() -> str:
        return (await llm(user("a"), temperature=1.0)).text

    engine = ScriptedEngine()
    session = await Session(engine).open()
    drawn = await gather(*(session.run(draw) for _ in range(5)))
    await session.close()
    assert len(set(drawn)) == engine.num_requests == 5
