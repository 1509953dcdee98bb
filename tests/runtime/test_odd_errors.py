"""Exceptions that are no `Exception`, or that several wait for: each comes out as itself."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from helium_agents import Ref, Session, gather, llm, operator, prompt, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import RequestError

PLAIN: dict[str, Any] = {"rules": (), "share": False, "memo": None}


class Odd(BaseException):
    """As `pytest.skip()` raises: neither an `Exception`, nor a cancellation, nor an exit."""


async def odd_row(number: int) -> int:
    if number == 2:
        raise Odd(number)
    return number


def odd_rows() -> Iterator[int]:
    yield 0
    yield 1
    raise Odd("rows")


async def odd_async_rows() -> AsyncIterator[int]:
    yield 0
    raise Odd("rows")


@operator(pure=True)
async def odd_pure(text: str) -> str:
    raise Odd(text)


@operator
async def odd_plain(text: str) -> str:
    raise Odd(text)


def odd_script(request: Request) -> str:
    raise Odd(request.messages[-1].content)


async def identity(row: Any) -> Any:
    return row


@pytest.mark.usefixtures("quiet_loop")
@pytest.mark.parametrize("options", [{}, PLAIN])
class TestBaseExceptions:
    @pytest.mark.parametrize("on_error", ["raise", "collect"])
    @pytest.mark.parametrize("ordered", [True, False])
    async def test_of_an_item(self, options: Any, on_error: Any, ordered: bool) -> None:
        async with asyncio.timeout(60), Session(ScriptedEngine(), **options) as session:
            with pytest.raises(Odd, match="2") as caught:
                async for _ in session.map(odd_row, range(4), on_error=on_error, ordered=ordered):
                    pass
        assert caught.value.__notes__ == ["in item 2: 2"]

    @pytest.mark.parametrize("rows", [odd_rows, odd_async_rows])
    async def test_of_the_source_of_rows(self, options: Any, rows: Any) -> None:
        found = []
        async with asyncio.timeout(60), Session(ScriptedEngine(), **options) as session:
            with pytest.raises(Odd, match="rows"):
                async for row in session.map(identity, rows()):
                    found.append(row)
        assert found == list(range(len(found))) and found

    @pytest.mark.parametrize("make", [odd_pure, odd_plain])
    async def test_of_an_operator(self, options: Any, make: Any) -> None:
        async with asyncio.timeout(60), Session(ScriptedEngine(), **options):
            for _ in range(2):
                ref = make("a")
                for _ in range(2):
                    with pytest.raises(Odd, match="a"):
                        await ref
            with pytest.raises(Odd, match="b"):
                await llm(user(prompt("{it}", it=make("b"))))

    async def test_of_an_engine(self, options: Any) -> None:
        async with asyncio.timeout(60), Session(ScriptedEngine(odd_script), **options):
            for _ in range(2):
                with pytest.raises(Odd, match="q"):
                    await llm(user("q"))

    async def test_in_gather(self, options: Any) -> None:
        async def fails() -> None:
            raise Odd("here")

        async with asyncio.timeout(60), Session(ScriptedEngine(lambda _: "ok"), **options):
            with pytest.raises(Odd, match="here"):
                await gather(llm(user("a")), fails(), odd_plain("later"))
            found = await gather(fails(), odd_pure("x"), return_exceptions=True)
        assert [str(each) for each in found] == ["here", "x"]

    async def test_of_a_validator(self, options: Any) -> None:
        class Strict(BaseModel):
            number: int

            @field_validator("number")
            @classmethod
            def check(cls, number: int) -> int:
                raise Odd(number)

        engine = ScriptedEngine(lambda _: '{"number": 3}')
        async with asyncio.timeout(60), Session(engine, **options):
            for sampling in ({}, {"temperature": 1.0, "seed": 1}):
                with pytest.raises(Odd, match="3"):
                    await llm(user("q"), schema=Strict, **sampling)  # type: ignore[call-overload]

    async def test_started_and_awaited_later(self, options: Any) -> None:
        async with asyncio.timeout(60), Session(ScriptedEngine(odd_script), **options):
            refs: list[Ref[Any]] = [llm(user("q")), odd_pure("q"), odd_plain("q")]
            for ref in refs:
                ref.start()
            for ref in refs:
                with pytest.raises(Odd, match="q"):
                    await ref


async def test_an_observer_that_raises_anything_breaks_nothing() -> None:
    heard: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: heard.append(context["exception"])
    )

    def observer(event: object) -> None:
        raise Odd(type(event).__name__)

    async with asyncio.timeout(60):
        async with Session(ScriptedEngine(lambda _: "ok"), observers=[observer]) as session:
            assert (await llm(user("q"))).text == "ok"
            assert [row async for row in session.map(identity, [1, 2])] == [1, 2]
    assert {type(error) for error in heard} == {Odd}


# --- one object each -----------------------------------------------------------------------------


class Detailed(Exception):
    """With arguments that `__init__` does not take as they are kept."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


@operator(pure=True)
async def fails_in_detail(text: str) -> str:
    await llm(user(text))
    try:
        raise KeyError(text)
    except KeyError as error:
        raise Detailed(7, hint=text) from error


async def error_of(awaitable: Any, note: str) -> BaseException:
    try:
        raise LookupError(note)
    except LookupError:
        try:
            await awaitable
        except BaseException as error:
            error.add_note(note)
            return error
    raise AssertionError("it should have failed")


@pytest.mark.usefixtures("quiet_loop")
@pytest.mark.parametrize("options", [{}, PLAIN])
async def test_each_who_waits_has_an_exception_of_its_own(options: Any) -> None:
    async with Session(ScriptedEngine(lambda _: "ok"), **options):
        ref = fails_in_detail("a")
        refs = [ref, ref, fails_in_detail("a"), fails_in_detail("a")]
        errors = await asyncio.gather(*(error_of(r, f"waiter {i}") for i, r in enumerate(refs)))
        errors.append(await error_of(ref, "waiter 4"))
    assert len({id(error) for error in errors}) == 5
    for number, error in enumerate(errors):
        assert type(error) is Detailed and error.args == ("code 7",)
        assert (error.code, error.hint) == (7, "a")
        assert isinstance(error.__cause__, KeyError)
        assert error.__notes__ == [f"waiter {number}"]
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names.count("error_of") == 1 and names[-1] == "fails_in_detail"


@operator
async def fails_plainly() -> str:
    await asyncio.sleep(0)
    raise Detailed(8, hint="plain")


@pytest.mark.usefixtures("quiet_loop")
async def test_also_of_a_plain_operator() -> None:
    async with Session(ScriptedEngine()):
        ref = fails_plainly()
        errors = await asyncio.gather(*(error_of(ref, f"waiter {i}") for i in range(3)))
    assert len({id(error) for error in errors}) == 3
    assert [error.__notes__ for error in errors] == [[f"waiter {i}"] for i in range(3)]


@pytest.mark.usefixtures("quiet_loop")
async def test_rows_that_were_merged_have_a_note_each() -> None:
    def script(request: Request) -> str:
        raise RequestError("no")

    async def ask(row: int) -> str:
        return (await llm(user("q"))).text

    async with Session(ScriptedEngine(script)) as session:
        found = [e async for e in session.map(ask, range(3), on_error="collect")]
        causes = [each.__cause__ for each in found]  # type: ignore[union-attr]
    assert len({id(cause) for cause in causes}) == 3


@pytest.mark.usefixtures("quiet_loop")
@pytest.mark.parametrize("options", [{}, PLAIN])
async def test_what_one_was_handling_is_no_context_of_what_others_catch(options: Any) -> None:
    async with Session(ScriptedEngine(), **options):
        ref = fails_plainly()
        first = await error_of(ref, "the first one's")
        assert str(first.__context__) == "the first one's"
        try:
            await llm(user(prompt("{it}", it=ref)))
        except Detailed as second:
            assert second.__context__ is None
