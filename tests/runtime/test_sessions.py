"""Sessions: opening, nesting, closing, and whom a Ref belongs to."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count

import pytest
from gate import Gate, ticks, until

from helium_agents import Ref, Session, gather, llm, operator, prompt, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import EngineStartError, RefCancelled, SessionError

pytestmark = pytest.mark.usefixtures("quiet_loop")


def saying(text: str) -> ScriptedEngine:
    return ScriptedEngine(lambda _: text, name=text, identity=text)


@operator
async def ask(text: str) -> str:
    return (await llm(user(text))).text


@operator(pure=True, version="1")
async def pure_ask(text: str) -> str:
    return (await llm(user(text))).text


# --- opening --------------------------------------------------------------------------------------


async def test_an_engine_is_started_when_it_is_needed_and_stopped_at_the_end() -> None:
    engine = saying("a")
    async with Session(engine):
        assert not engine.is_started
        await gather(ask("x"), ask("y"), pure_ask("x"))
        assert engine.is_started
    assert not engine.is_started
    assert engine.num_starts == 1


async def test_an_engine_that_was_started_before_is_left_running() -> None:
    engine = saying("a")
    await engine.start()
    async with Session(engine):
        await ask("x")
    assert engine.is_started


async def test_one_engine_serves_sessions_one_after_another() -> None:
    engine = saying("a")
    for _ in range(3):
        async with Session(engine):
            assert await ask("x") == "a"
    assert engine.num_starts == engine.num_requests == 3  # each session remembers for itself


async def test_a_session_is_opened_once() -> None:
    session = Session(saying("a"))
    async with session:
        with pytest.raises(SessionError, match="opened once"):
            async with session:
                pass
        assert await ask("x") == "a"
    with pytest.raises(SessionError, match="opened once"):
        async with session:
            pass


async def test_an_engine_without_identity_fails_the_opening() -> None:
    class NoWeights(ScriptedEngine):
        def identity(self) -> str:
            raise EngineStartError("no weights")

    with pytest.raises(EngineStartError, match="no weights"):
        async with Session(NoWeights()):
            raise AssertionError
    with pytest.raises(SessionError):
        await ask("x")


@pytest.mark.parametrize(
    "options", [{"memo_mode": "often"}, {"token_budget": 0}, {"engine": {}}], ids=str
)
async def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(SessionError, match=next(iter(options))):
        Session(**{"engine": saying("a"), **options})  # type: ignore[arg-type]


async def test_engines_by_name() -> None:
    first, second = saying("first"), saying("second")
    async with Session({"one": first, "two": second}):
        replies = await gather(
            llm(user("x")), llm(user("x"), model="two"), llm(user("x"), model="one")
        )
        assert [reply.text for reply in replies] == ["first", "second", "first"]
        assert (first.num_requests, second.num_requests) == (1, 1)
        with pytest.raises(SessionError, match=r"model='three'.*'one', 'two'"):
            await llm(user("x"), model="three")


async def test_the_body_s_exception_comes_out_as_it_is() -> None:
    error = ZeroDivisionError("mine")
    with pytest.raises(ZeroDivisionError) as caught:
        async with Session(ScriptedEngine(Gate())):
            llm(user("x")).start()
            await ticks()
            raise error
    assert caught.value is error
    assert error.__cause__ is None and error.__context__ is None


async def test_calls_need_a_session() -> None:
    async with Session(saying("a")):
        pass
    with pytest.raises(SessionError, match=r"needs a session.*async with"):
        await ask("x")


async def test_entered_and_left_in_different_tasks_and_contexts() -> None:
    session = Session(saying("a"))
    stack = AsyncExitStack()
    await asyncio.create_task(stack.enter_async_context(session))
    entered = contextvars.copy_context()
    assert [r async for r in session.map(lambda text: ask(text), ["x", "y"])] == ["a", "a"]
    await asyncio.create_task(stack.aclose(), context=entered)


# --- nesting --------------------------------------------------------------------------------------


async def test_the_innermost_session_wins() -> None:
    async with Session(saying("outer")):
        before = asyncio.create_task(ask("x"))
        async with Session(saying("inner")):
            assert await ask("x") == "inner"
            async with Session(saying("innermost")):
                assert await gather(ask("x"), pure_ask("x")) == ("innermost", "innermost")
            assert await ask("x") == "inner"
        assert await ask("x") == await before == "outer"
        assert await pure_ask("x") == "outer"


async def test_a_session_inside_an_operator() -> None:
    @operator
    async def second_opinion(text: str) -> tuple[str, str]:
        async with Session(saying("inner")):
            inner = await ask(text)
        return await ask(text), inner

    async with Session(saying("outer")) as session:
        assert await second_opinion("x") == ("outer", "inner")
        assert await gather(*(second_opinion("x") for _ in range(3))) == (("outer", "inner"),) * 3
        assert [r async for r in session.map(second_opinion, "ab")] == [("outer", "inner")] * 2
        assert await ask("y") == "outer"


async def test_sessions_side_by_side() -> None:
    async def program(name: str) -> list[str]:
        async with Session(saying(name)):
            return [await ask(str(number)) for number in range(5)]

    assert await asyncio.gather(program("a"), program("b")) == [["a"] * 5, ["b"] * 5]


async def test_the_inner_session_fails() -> None:
    async with Session(saying("outer")):
        with pytest.raises(KeyError):
            async with Session(saying("inner")):
                raise KeyError
        assert await ask("x") == "outer"


async def test_a_ref_is_computed_by_the_session_it_belongs_to() -> None:
    outer_engine, inner_engine = saying("outer"), saying("inner")
    async with Session(outer_engine):
        ref = llm(user("x"))
        async with Session(inner_engine):
            with pytest.raises(SessionError, match="another session"):
                await llm(user(prompt("{x}", x=ref)))
            with pytest.raises(SessionError, match="another session"):
                await pure_ask.defer(ref)
        assert (await ref).text == "outer"
    assert (outer_engine.num_requests, inner_engine.num_requests) == (1, 0)


# --- closing --------------------------------------------------------------------------------------


async def test_refs_after_the_close() -> None:
    async with Session(saying("a")) as session:
        refs: list[Ref[object]] = [llm(user("x")), pure_ask("x"), ask.defer(llm(user("x")))]
        known = ask("x")
        assert await known == "a"
        await refs[2]
        plain = ask("y")
        plain.close()
    for ref in (*refs[:2], plain):
        with pytest.raises(SessionError, match="not open"):
            await ref
        with pytest.raises(SessionError):
            ref.start()
    with pytest.raises(SessionError):
        [piece async for piece in llm_ref_stream(refs[0])]
    with pytest.raises(SessionError):
        session.map(ask, ["x"])
    assert await known == "a"  # what is known stays known


def llm_ref_stream(ref: Ref[object]) -> AsyncIterator[str]:
    return ref.stream()


async def test_calls_made_after_the_close_where_the_session_still_is_current() -> None:
    go_on = asyncio.Event()

    async def late() -> None:
        await go_on.wait()
        llm(user("x"))

    async with Session(saying("a")):
        task = asyncio.create_task(late())
        await ticks(1)
    go_on.set()
    with pytest.raises(SessionError, match="not open"):
        await task


async def test_open_calls_are_aborted_and_those_who_wait_are_told() -> None:
    gate = Gate(clean_up_ticks=4)
    engine = ScriptedEngine(gate)
    async with Session(engine):
        tasks = [asyncio.create_task(ref) for ref in (llm(user("x")), pure_ask("y"), ask("z"))]
        await until(lambda: engine.num_open == 3)
        assert len(asyncio.all_tasks()) > 4
    assert (engine.num_open, gate.num_cleaned_up) == (0, 3)
    assert not engine.is_started
    for task in tasks:
        with pytest.raises((SessionError, RefCancelled), match=r"closed|cancelled"):
            await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_while_the_engine_starts() -> None:
    class SlowStart(ScriptedEngine):
        num_stopped = 0

        async def start(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                self.num_stopped += 1

    engine = SlowStart()
    async with Session(engine):
        task = asyncio.create_task(ask("x"))
        await ticks()
    with pytest.raises((SessionError, RefCancelled)):
        await task
    assert engine.num_stopped == 1


async def test_closing_ends_a_map() -> None:
    engine = ScriptedEngine(Gate())

    async def program(session: Session) -> list[str]:
        return [text async for text in session.map(ask, ["x", "y"])]

    async with Session(engine) as session:
        task = asyncio.create_task(program(session))
        await until(lambda: engine.num_open == 2)
    with pytest.raises((SessionError, RefCancelled)):
        await task
    assert engine.num_open == 0


async def test_closing_while_a_map_waits_for_rows_is_no_normal_end() -> None:
    async def rows() -> AsyncIterator[str]:
        yield "x"
        await asyncio.Event().wait()

    taken: list[str] = []

    async def program(session: Session) -> None:
        async for text in session.map(ask, rows()):
            taken.append(text)

    async with Session(saying("a")) as session:
        task = asyncio.create_task(program(session))
        await until(lambda: taken)
    with pytest.raises((SessionError, RefCancelled)):
        await task


async def test_an_engine_that_fails_to_close_is_heard_of() -> None:
    class Stuck(ScriptedEngine):
        async def close(self) -> None:
            raise RuntimeError("stuck")

    with pytest.raises(RuntimeError, match="stuck"):
        async with Session(Stuck()):
            await ask("x")


# --- memory ---------------------------------------------------------------------------------------


async def test_a_session_remembers_what_it_was_told() -> None:
    answers = count(1)

    def script(request: Request) -> str:
        return f"{request.messages[-1].content} of {next(answers)}"

    engine = ScriptedEngine(script)
    async with Session(engine) as session:
        assert [await ask("x") for _ in range(3)] == ["x of 1"] * 3
        assert session.summary.calls_by_source == {"engine": 1, "earlier": 2}
    async with Session(engine, memo_mode="off"):
        assert [await ask("x") for _ in range(2)] == ["x of 2", "x of 3"]
    async with Session(engine, share=False, rules=()):
        assert sorted(await gather(ask("x"), ask("x"))) == ["x of 4", "x of 5"]


@pytest.mark.parametrize("options", [{}, {"memo_mode": "off"}, {"share": False, "rules": ()}])
async def test_sharing_is_only_of_what_is_deterministic(options: dict[str, object]) -> None:
    engine = ScriptedEngine()
    async with Session(engine, **options):  # type: ignore[arg-type]
        replies = await gather(*(llm(user("x"), temperature=1.0) for _ in range(4)))
        assert len({reply.text for reply in replies}) == 4
        assert engine.num_requests == 4
