"""A session as people program: opened and closed apart, from any task, engines that outlive it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from gate import Gate, ticks, until

from helium_agents import MemoryStore, Ref, Session, gather, llm, operator, prompt, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import SessionError

pytestmark = pytest.mark.usefixtures("quiet_loop")


@operator
async def ask(text: str) -> str:
    return (await llm(user(text))).text


def echo() -> ScriptedEngine:
    return ScriptedEngine(lambda request: request.messages[-1].content)


# --- any task ------------------------------------------------------------------------------------


async def test_opened_and_closed_apart() -> None:
    engine = echo()
    session = await Session(engine).open()
    assert await session.run(ask, "a") == "a"
    assert await ask("b") == "b", "it is the one that is open"
    await session.close()
    await session.close()
    with pytest.raises(SessionError, match="not open"):
        await session.run(ask, "c")
    with pytest.raises(SessionError, match="opened once"):
        await session.open()


async def test_each_cell_of_a_notebook_is_a_task_of_its_own() -> None:
    async def first_cell() -> Session:
        return await Session(echo()).open()

    async def second_cell() -> str:
        return await ask("a") + (await llm(user("b"))).text

    session = await asyncio.create_task(first_cell())
    assert await asyncio.create_task(second_cell()) == "ab"
    await asyncio.create_task(session.close())


async def test_a_task_that_was_there_before_the_session_sees_it() -> None:
    requests: asyncio.Queue[str] = asyncio.Queue()
    answers: list[str] = []

    async def handler() -> None:
        while (text := await requests.get()) != "end":
            answers.append(await ask(text))

    task = asyncio.create_task(handler())
    await ticks()
    async with Session(echo()):
        for text in ("a", "b", "end"):
            requests.put_nowait(text)
        await task
    assert answers == ["a", "b"]


async def test_where_several_are_open_a_task_of_neither_must_say_which() -> None:
    wake = asyncio.Event()

    async def outside(session: Session) -> str:
        await wake.wait()
        with pytest.raises(SessionError, match=r"2 sessions are open.*session\.run"):
            ask("a")
        return await session.run(ask, "a")

    async with Session(echo()) as first:
        pass
    first = Session(ScriptedEngine({"a": "first"}))
    second = Session(ScriptedEngine({"a": "second"}))
    tasks = [asyncio.create_task(outside(each)) for each in (first, second)]
    await ticks()
    async with first, second:
        wake.set()
        assert await gather(*tasks) == ("first", "second")
        assert (await llm(user("a"))).text == "second", "the innermost, where there is one"


async def test_run_hides_the_session_around_it_and_gives_it_back() -> None:
    inner = await Session(ScriptedEngine({"a": "inner"})).open()
    async with Session(ScriptedEngine({"a": "outer"})):
        assert await inner.run(ask, "a") == "inner"
        assert await ask("a") == "outer"
    await inner.close()


async def test_maps_from_any_task() -> None:
    session = await Session(echo()).open()

    async def cell() -> list[str]:
        return [text async for text in session.map(ask, ["a", "b"])]

    assert await asyncio.create_task(cell()) == ["a", "b"]
    await session.close()


@pytest.mark.parametrize("num_ticks", range(12))
async def test_cancelled_while_it_opens(num_ticks: int, tmp_path: Path) -> None:
    async def enter() -> None:
        async with Session(echo(), memo=tmp_path):
            await asyncio.sleep(3600)

    task = asyncio.create_task(enter())
    await ticks(num_ticks)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with Session(echo(), memo=tmp_path):  # nothing is left open
        assert await ask("a") == "a"


async def test_a_session_is_not_closed_from_inside_a_call_of_it() -> None:
    sessions: list[Session] = []

    async def script(_: object) -> str:
        await sessions[0].close()
        return "never"

    @operator
    async def row(_: int) -> None:
        await sessions[0].close()

    async with Session(ScriptedEngine(script)) as session:
        sessions.append(session)
        with pytest.raises(SessionError, match="inside a call or a row"):
            await llm(user("q"))
        with pytest.raises(SessionError, match="inside a call or a row"):
            async for _ in session.map(row, [1]):
                pass


async def test_a_row_that_awaits_the_task_that_closes_the_session() -> None:
    session = await Session(echo()).open()
    stop = asyncio.Event()

    async def close() -> None:
        await stop.wait()
        await session.close()

    closing = asyncio.create_task(close())

    async def row(number: int) -> str:
        if number == 2:
            stop.set()
            await closing
        return await ask(str(number))

    async with asyncio.timeout(60):
        with pytest.raises(SessionError, match="the session was closed"):
            async for _ in session.map(row, range(5)):
                pass
        await asyncio.wait([closing])
        await session.close()
    assert session.waiting() == "the session is closed"


# --- engines -------------------------------------------------------------------------------------


async def test_an_engine_that_was_started_outlives_sessions() -> None:
    async with echo() as engine:
        for _ in range(2):
            async with Session(engine):
                await ask("a")
            assert engine.is_started
        first, second = await Session(engine).open(), await Session(engine).open()
        assert await gather(first.run(ask, "a"), second.run(ask, "b")) == ("a", "b")
        await first.close()
        assert await second.run(ask, "c") == "c"
        await second.close()
    assert engine.num_starts == 1 and not engine.is_started


async def test_an_engine_that_sessions_started_stops_with_the_last_of_them() -> None:
    engine = echo()
    first, second = await Session(engine).open(), await Session(engine).open()
    await first.run(ask, "a")
    await first.close()
    assert engine.is_started
    assert await second.run(ask, "b") == "b"
    await second.close()
    assert not engine.is_started and engine.num_starts == 1


async def test_a_death_while_two_sessions_use_the_engine() -> None:
    gate = Gate()
    async with ScriptedEngine(gate) as engine:
        first, second = await Session(engine).open(), await Session(engine).open()
        asked = [asyncio.create_task(session.run(ask, "a")) for session in (first, second)]
        await until(lambda: engine.num_open == 2)
        with pytest.warns(RuntimeWarning, match="died"):
            engine.die()
            gate.open()
            assert await gather(*asked) == ("a", "a")
        await first.close()
        await second.close()
        assert engine.num_starts == 2


# --- what a session is given ---------------------------------------------------------------------


def test_the_name_of_a_model_is_enough() -> None:
    session = Session("Qwen/Qwen3-8B")
    (engine,) = session._assembly.engines["Qwen3-8B"]
    assert isinstance(engine, VLLM) and engine.name == "Qwen3-8B"
    several = Session({"big": "Qwen/Qwen3-8B", "small": ScriptedEngine()})
    assert isinstance(several._assembly.engines["big"][0], VLLM)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": VLLM}, "engine=VLLM is a class: make an engine of it"),
        ({"engine": 3}, r"engine=int\(...\) is no engine"),
        ({"engine": {}}, "names no engine"),
        ({"engine": {1: ScriptedEngine()}}, "must be text"),
        ({"memo": 3}, "memo=3 must be"),
        ({"memo_mode": "readwrite"}, "memo_mode='readwrite' must be one of"),
        ({"rules": None}, "rules=None must be"),
        ({"rules": ["merge"]}, "rules="),
        ({"share": "no"}, "share='no' must be"),
        ({"token_budget": 0}, "token_budget=0 must be"),
        ({"token_budget": 1.5}, "token_budget=1.5 must be"),
        ({"token_budget": True}, "token_budget=True must be"),
        ({"observers": print}, "observers="),
        ({"run_id": 3}, "run_id=3 must be text"),
    ],
)
def test_arguments_are_checked_where_they_are_given(options: Any, message: str) -> None:
    with pytest.raises(SessionError, match=message):
        Session(**options)


# --- what waits ----------------------------------------------------------------------------------


@operator(pure=True)
async def summary(text: str) -> str:
    return (await llm(user(text))).text


@operator
async def outer(text: str) -> str:
    return await summary(text)


async def test_waiting_shows_who_waits_for_what() -> None:
    gate = Gate()
    async with Session(ScriptedEngine(gate, name="slow")) as session:
        assert session.waiting().startswith("calls that wait or are computed: 0")
        rows = aiter(session.map(outer, ["a", "b", "a"]))
        first = asyncio.ensure_future(anext(rows))
        second = asyncio.ensure_future(ask("alone"))
        third = asyncio.ensure_future(stuck())
        started = llm(user("started")).start()
        await until(lambda: "open requests: 4" in session.waiting())
        text = session.waiting()
        gate.open()
        third.cancel()
        await gather(first, second, started)
        await rows.aclose()
    lines = text.splitlines()
    assert lines[0] == "calls that wait or are computed: 6"
    assert lines[1].startswith("map of outer: all rows are read, rows read: 3, items open: 3")
    assert lines[2] == "engine 'slow' is up, open requests: 4"
    names = [line.split(":")[0] for line in lines]
    item = names.index("  item 0 of a map")
    assert names[item : item + 4] == [
        "  item 0 of a map",
        "    outer('a')",
        "      summary('a') and 1 equal call",
        "        llm(user('a'))",
    ]
    program = names.index("  the program")
    assert names[program + 1 : program + 4] == [
        "    ask('alone')",
        "      llm(user('alone'))",
        "    stuck()",
    ]
    started_line = names.index("  started, and awaited by nobody")
    assert names[started_line + 1] == "    llm(user('started'))"


@operator
async def stuck() -> None:
    await asyncio.Event().wait()


async def test_waiting_of_a_session_that_is_not_open() -> None:
    session = Session(echo())
    assert session.waiting() == "the session is new"
    async with session:
        pass
    assert session.waiting() == "the session is closed"


# --- savings -------------------------------------------------------------------------------------


@operator(pure=True)
async def twice(text: str) -> str:
    first = (await llm(user(text))).text
    return first + await once(text + "!")


@operator(pure=True)
async def once(text: str) -> str:
    return (await llm(user(text))).text


async def test_calls_below_a_shared_or_remembered_result_count_as_saved() -> None:
    store = MemoryStore()

    async def row(text: str) -> str:
        return await twice(text)

    async with Session(echo(), memo=store) as session:
        _ = [text async for text in session.map(row, ["a", "b", "a", "a"])]
        assert session.summary.num_plain_calls == 8
        assert session.summary.num_computed == 4
    async with Session(echo(), memo=store) as session:
        assert await twice("a") == "aa!"
        assert await once("a!") == "a!"
        assert await once("b!") == "b!"
        assert session.summary.num_plain_calls == 4
        assert session.summary.num_computed == 0
        assert session.summary.operators_by_source == {"memo": 3}
        await twice("c")
        await twice("c")
        assert session.summary.operators_by_source == {"memo": 3, "body": 2, "earlier": 1}
        assert session.summary.num_plain_calls == 8
    store.close()


async def test_inputs_that_were_spared_count_as_saved_once() -> None:
    def chain(text: str) -> tuple[Ref[Any], Ref[Any]]:
        draft = llm(user(text))
        return draft, llm(user(prompt("better {it}", it=draft)))

    store = MemoryStore()
    async with Session(echo(), memo=store) as session:
        refs = [chain("a") for _ in range(3)]
        await gather(*(end for _, end in refs))
        assert (session.summary.num_plain_calls, session.summary.num_computed) == (6, 2)
    async with Session(echo(), memo=store) as session:
        draft, end = chain("a")
        await end
        assert (session.summary.num_plain_calls, session.summary.num_calls) == (2, 1)
        await draft
        assert (session.summary.num_plain_calls, session.summary.num_calls) == (2, 2)
    store.close()


async def test_pure_operators_that_were_spared_count_by_what_is_remembered_of_them() -> None:
    async def row(text: str) -> str:
        return (await llm(user(prompt("merge {it}", it=twice(text))))).text

    store = MemoryStore()
    for num_computed in (6, 0):
        async with Session(echo(), memo=store) as session:
            assert len([text async for text in session.map(row, ["a", "b", "a"])]) == 3
            assert session.summary.num_plain_calls == 9
            assert session.summary.num_computed == num_computed
    async with Session(echo(), memo=store) as session:
        ref = twice("a")
        await llm(user(prompt("merge {it}", it=ref)))
        assert session.summary.num_plain_calls == 3
        await ref
        assert session.summary.num_plain_calls == 3
    store.close()


async def test_calls_that_time_out_or_are_cancelled_are_counted() -> None:
    async with Session(ScriptedEngine(Gate())) as session:
        for text in ("a", "b"):
            with pytest.raises(TimeoutError):
                await llm(user(text), timeout=0.01)
        counts = session.summary.as_dict()
        assert counts["plain_calls"] == counts["calls"] == counts["cancelled_calls"] == 2
        assert counts["computed"] == counts["failed_calls"] == counts["saved_calls"] == 0
