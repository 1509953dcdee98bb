"""Calls that await each other: an error that names them, at the moment when the cycle closes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from helium_agents import Ref, Session, gather, llm, operator, prompt, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import RefMisuse

pytestmark = pytest.mark.usefixtures("quiet_loop")

PLAIN: dict[str, Any] = {"rules": (), "share": False, "memo": None}


@operator(pure=True)
async def ping() -> str:
    await asyncio.sleep(0)
    return await pong()


@operator(pure=True)
async def pong() -> str:
    await asyncio.sleep(0)
    return await ping()


@operator(pure=True)
async def one() -> str:
    return await two()


@operator(pure=True)
async def two() -> str:
    return await three()


@operator(pure=True)
async def three() -> str:
    return await one()


@operator(pure=True)
async def itself() -> str:
    return await itself()


async def errors_of(*refs: Awaitable[Any]) -> list[BaseException]:
    async with asyncio.timeout(5):
        found = await gather(*refs, return_exceptions=True)
    assert all(isinstance(each, RefMisuse) for each in found), found
    return list(found)


@pytest.mark.parametrize("options", [{}, PLAIN])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [ping(), pong()], r"ping\(...\) awaits pong\(...\) awaits ping\(...\): none"),
        (lambda: [pong()], r"ping\(...\) awaits pong\(...\) awaits ping\(...\): none"),
        (lambda: [one(), two(), three()], r"one\(...\) awaits two\(...\) awaits three\(...\) aw"),
        (lambda: [itself()], r"itself\(...\) awaits its own result"),
    ],
)
async def test_pure_operators(
    make: Callable[[], list[Ref[str]]], message: str, options: dict[str, Any]
) -> None:
    async with Session(ScriptedEngine(), **options):
        for error in await errors_of(*[ref.start() for ref in make()]):
            assert re.search(message, str(error))


@pytest.mark.parametrize("options", [{}, PLAIN])
async def test_two_plain_refs(options: dict[str, Any]) -> None:
    refs: dict[str, Ref[str]] = {}

    @operator
    async def await_other(name: str) -> str:
        await asyncio.sleep(0)
        return await refs[name]

    async with Session(ScriptedEngine(), **options):
        refs |= {"a": await_other("b"), "b": await_other("a")}
        found = await errors_of(refs["a"], refs["b"])
    assert all("await_other(...) awaits await_other(...)" in str(error) for error in found)


async def test_two_plain_refs_without_a_session() -> None:
    refs: dict[str, Ref[str]] = {}

    @operator
    async def await_other(name: str) -> str:
        await asyncio.sleep(0)
        return await refs[name]

    refs |= {"a": await_other("b"), "b": await_other("a")}
    await errors_of(refs["a"], refs["b"])


@pytest.mark.parametrize("options", [{}, PLAIN])
async def test_a_call_that_has_its_own_caller_as_an_input(options: dict[str, Any]) -> None:
    refs: list[Ref[str]] = []

    @operator(pure=True)
    async def identity(value: str) -> str:
        return value

    @operator(pure=True, version="1")
    async def pure_caller() -> str:
        return await identity.defer(refs[0])

    @operator
    async def plain_caller() -> str:
        return (await llm(user(prompt("{it}", it=refs[0])))).text

    for caller in (pure_caller, plain_caller):
        async with Session(ScriptedEngine(), **options):
            refs[:] = [caller()]
            await errors_of(refs[0])


async def test_a_row_that_awaits_who_maps_it() -> None:
    refs: list[Ref[Any]] = []

    async def row(_: int) -> Any:
        return await refs[0]

    @operator
    async def over(session: Session) -> list[Any]:
        return [found async for found in session.map(row, range(3))]

    async with Session(ScriptedEngine()) as session:
        refs.append(over(session))
        await errors_of(refs[0])


async def test_waiting_for_one_another_in_turn_is_no_cycle() -> None:
    @operator(pure=True)
    async def leaf(name: str) -> str:
        return (await llm(user(name))).text

    @operator(pure=True)
    async def branch(name: str) -> str:
        return " ".join(await gather(leaf(name), leaf("shared")))

    async with Session(ScriptedEngine(lambda request: request.messages[-1].content)):
        refs = [branch(name).start() for name in "abc"]
        assert await gather(*refs) == ("a shared", "b shared", "c shared")


async def test_a_cycle_through_session_run() -> None:
    sessions: list[Session] = []

    @operator(pure=True, version="1")
    async def first() -> str:
        return await sessions[0].run(second)

    @operator(pure=True, version="1")
    async def second() -> str:
        return await sessions[0].run(first)

    for options in ({}, PLAIN):
        async with Session(ScriptedEngine(), **options) as session:
            sessions[:] = [session]
            await errors_of(first())
