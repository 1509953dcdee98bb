"""The life of a flight: whatever ends it, it has landed or was left, and nobody waits in vain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gate import Gate, ticks, until

from helium_agents import Session, gather, llm, operator, prompt, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import RequestError, SessionError

pytestmark = pytest.mark.usefixtures("quiet_loop")

PLAIN: dict[str, Any] = {"rules": (), "share": False, "memo": None}


async def fails_on_q(request: Request) -> str:
    if request.messages[-1].content == "q":
        await asyncio.sleep(0.001)
        raise RequestError("too long")
    return "ok"


async def ask_about_q(_: int) -> str:
    await asyncio.sleep(0.0005)
    try:
        return (await llm(user(prompt("{a} t", a=llm(user("q")))))).text
    except RequestError:
        return "failed"


@pytest.mark.parametrize("num_rows", [50, 200, 200, 200])
async def test_a_failing_input_of_calls_that_joined_hangs_nobody(num_rows: int) -> None:
    async with Session(ScriptedEngine(fails_on_q)) as session:
        found = [text async for text in session.map(ask_about_q, range(num_rows))]
    assert found == ["failed"] * num_rows


async def test_inputs_of_a_call_that_joined_are_not_asked() -> None:
    gate = Gate()
    engine = ScriptedEngine({"q": "a"})

    async def script(request: Request) -> str:
        return "a" if request.messages[-1].content == "q" else await gate(request)

    engine = ScriptedEngine(script)
    async with Session(engine, memo_mode="off") as session:
        first = llm(user(prompt("{a} t", a=llm(user("q"))))).start()
        await until(lambda: engine.num_requests == 2)
        second = llm(user(prompt("{a} t", a=llm(user("q"))))).start()
        await ticks()
        gate.open()
        assert await first == await second
    assert engine.num_requests == 2
    assert session.summary.calls_by_source == {"engine": 2, "joined": 1}


@pytest.mark.parametrize("num_turns", range(24))
async def test_what_is_asked_while_an_equal_call_lands_is_not_computed_again(
    num_turns: int,
) -> None:
    """The answer may come after the memo was asked for it, and before the call is planned."""
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        first = llm(user("q")).start()
        await until(lambda: engine.num_open == 1)
        gate.open()
        await ticks(num_turns)
        assert await llm(user("q")) == await first
    assert engine.num_requests == 1


@pytest.mark.parametrize("options", [{}, PLAIN])
async def test_a_chain_of_any_length(options: dict[str, Any]) -> None:
    engine = ScriptedEngine(lambda _: "ok", keep_requests=False)
    async with Session(engine, **options):
        ref = llm(user("start"))
        for number in range(3000):
            ref = llm(user(prompt("{x} {n}", x=ref, n=number)))
        assert (await ref).text == "ok"
    assert engine.num_requests == 3001


@operator(pure=True)
async def pair(*parts: str) -> str:
    return "x"


@operator
async def plain_pair(*parts: str) -> str:
    return "x"


@pytest.mark.parametrize("options", [{}, PLAIN])
@pytest.mark.parametrize("make", [pair, plain_pair])
async def test_a_diamond_of_any_depth(make: Any, options: dict[str, Any]) -> None:
    async with Session(ScriptedEngine(), **options):
        left, right = pair("left"), pair("right")
        for _ in range(300):
            left, right = make.defer("l", left, right), make.defer("r", left, right)
        assert await gather(left, right) == ("x", "x")


@pytest.mark.parametrize("options", [{}, PLAIN])
async def test_a_failure_passes_down_a_chain_of_any_length(options: dict[str, Any]) -> None:
    async with Session(ScriptedEngine(fails_on_q), **options):
        ref = llm(user("q"))
        for _ in range(2000):
            ref = llm(user(prompt("{x}", x=ref)))
        with pytest.raises(RequestError, match="too long"):
            await ref


@operator(pure=True)
async def depth(number: int) -> int:
    return 0 if number == 0 else 1 + await depth(number - 1)


@pytest.mark.parametrize("options", [{}, PLAIN])
async def test_pure_recursion_of_any_depth(options: dict[str, Any]) -> None:
    async with Session(ScriptedEngine(), **options):
        assert await depth(2000) == 2000


async def test_a_rule_that_raises_fails_the_calls_and_loses_none() -> None:
    def broken(plan: Any, known: Any) -> Any:
        raise RuntimeError("the rule is broken")

    async with Session(ScriptedEngine(), rules=(broken,)):
        refs = [llm(user(prompt("{x}", x=llm(user(f"{i}"))))) for i in range(3)]
        errors = await gather(*refs, return_exceptions=True)
        assert [str(error) for error in errors] == ["the rule is broken"] * 3
        again = await gather(*refs, return_exceptions=True)
        assert [str(error) for error in again] == ["the rule is broken"] * 3


async def test_who_waits_when_the_session_closes_hears_that_it_was_closed() -> None:
    engine = ScriptedEngine(Gate())
    session = Session(engine)
    await session.open()

    async def ask() -> None:
        await llm(user("q"))

    waiting = asyncio.create_task(session.run(ask))
    not_begun = asyncio.create_task(session.run(ask))
    rows = aiter(session.map(fails_never, ["a", "b"]))
    mapped = asyncio.ensure_future(anext(rows))
    await until(lambda: engine.num_open)
    await session.close()
    for task in (waiting, not_begun, mapped):
        with pytest.raises(SessionError, match="the session was closed"):
            await task


async def fails_never(row: str) -> str:
    return (await llm(user(row))).text
