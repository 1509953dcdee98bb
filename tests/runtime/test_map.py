"""`session.map`: results stream in, in bounded memory, and nothing outlives the loop over them."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any, ClassVar

import pytest
from gate import Gate, ticks, until

from helium_agents import ItemError, MemoryStore, Session, gather, llm, operator, user
from helium_agents.engines.engine import Capacity, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import EngineStartError, RefCancelled
from helium_agents.telemetry.events import Event, ItemClosed, ItemOpened

pytestmark = pytest.mark.usefixtures("quiet_loop")

log: list[str] = []
mood: ContextVar[str] = ContextVar("mood", default="calm")


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()


@operator
async def ask(row: Any) -> str:
    return (await llm(user(f"row {row}"))).text


@operator
async def slower_first(row: int) -> int:
    await ticks(50 - 5 * row)
    return row


@operator
async def hold(row: int) -> int:
    """Answers 0 at once, and other rows never."""
    try:
        if row:
            await llm(user(f"held {row}"))
        return row
    finally:
        await ticks(3)
        log.append(f"end {row}")


def held(request: Request) -> Any:
    return Gate(clean_up_ticks=2)(request)


async def counting() -> AsyncIterator[int]:
    for number in range(6):
        await asyncio.sleep(0)
        yield number


# --- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        lambda: range(6),
        lambda: [0, 1, 2, 3, 4, 5],
        lambda: iter(range(6)),
        lambda: (number for number in range(6)),
        lambda: dict.fromkeys(range(6)),
        counting,
    ],
)
async def test_any_iterable(rows: Any) -> None:
    async with Session(ScriptedEngine()) as session:
        assert [row async for row in session.map(slower_first, rows())] == [0, 1, 2, 3, 4, 5]
        unordered = [row async for row in session.map(slower_first, rows(), ordered=False)]
        assert sorted(unordered) == [0, 1, 2, 3, 4, 5]
        assert [pair async for pair in session.map(slower_first, rows()).indexed()] == [
            (number, number) for number in range(6)
        ]


async def test_ordered_and_unordered() -> None:
    events = [asyncio.Event() for _ in range(3)]

    @operator
    async def waits(row: int) -> int:
        await events[row].wait()
        return 10 * row

    async with Session(ScriptedEngine()) as session:
        unordered = session.map(waits, range(3), ordered=False).indexed()
        ordered = session.map(waits, range(3))
        for row in (2, 0, 1):
            events[row].set()
            assert await anext(unordered) == (row, 10 * row)
        with pytest.raises(StopAsyncIteration):
            await anext(unordered)
        assert [row async for row in ordered] == [0, 10, 20]
        with pytest.raises(StopAsyncIteration):
            await anext(ordered)


async def test_an_empty_source() -> None:
    async with Session(ScriptedEngine()) as session:
        assert [row async for row in session.map(ask, [])] == []


async def test_plain_functions_lambdas_and_methods() -> None:
    class Asker:
        @operator
        async def ask(self, row: int) -> str:
            return await ask(row)

    async def function(row: int) -> str:
        return await ask(row)

    async with Session(ScriptedEngine(Gate(is_open=True))) as session:
        for fn in (function, lambda row: ask(row), Asker().ask):
            assert [text async for text in session.map(fn, range(3))] == ["row 0", "row 1", "row 2"]


async def test_equal_rows_share_their_calls() -> None:
    engine = ScriptedEngine()
    async with Session(engine) as session:
        results = [text async for text in session.map(ask, [1, 2, 1, 1, 2])]
        assert results[0] == results[2] == results[3] != results[1] == results[4]
        assert engine.num_requests == 2
        assert session.summary.num_items == 5


async def test_items_run_in_a_copy_of_the_callers_context() -> None:
    @operator
    async def feel(row: int) -> str:
        before = mood.get()
        mood.set(f"mood {row}")
        return before

    async with Session(ScriptedEngine()) as session:
        mood.set("happy")
        mapped = session.map(feel, range(2))
        mood.set("calm")
        assert [text async for text in mapped] == ["happy", "happy"]


@pytest.mark.parametrize("options", [{"on_error": "ignore"}, {"read_ahead": 0}], ids=str)
async def test_options_are_checked(options: dict[str, Any]) -> None:
    async with Session(ScriptedEngine()) as session:
        with pytest.raises(ValueError, match=next(iter(options))):
            session.map(ask, [], **options)


async def test_items_are_seen_by_observers() -> None:
    events: list[Event] = []
    async with Session(ScriptedEngine(), observers=[events.append]) as session:
        async for _ in session.map(ask, range(2)):
            pass
    opened = [event.index for event in events if isinstance(event, ItemOpened)]
    closed = [(event.index, event.error) for event in events if isinstance(event, ItemClosed)]
    assert opened == [0, 1]
    assert sorted(closed) == [(0, None), (1, None)]


# --- errors --------------------------------------------------------------------------------------


@operator
async def fail_at_odd(row: int) -> int:
    await ticks(20 - row)
    if row % 2:
        raise KeyError(row)
    return row


async def test_the_first_failure_in_the_order_of_the_rows_is_raised() -> None:
    taken = []
    async with Session(ScriptedEngine()) as session:
        with pytest.raises(KeyError) as caught:
            async for row in session.map(fail_at_odd, range(10)):
                taken.append(row)
        assert taken == [0]
        assert caught.value.args == (1,)
        assert caught.value.__notes__ == ["in item 1: 1"]
        assert caught.traceback[-1].name == "fail_at_odd"
        assert session.summary.num_computed == 0
    assert len(asyncio.all_tasks()) == 1


async def test_the_first_failure_on_the_clock_is_raised_where_unordered() -> None:
    async with Session(ScriptedEngine()) as session:
        with pytest.raises(KeyError) as caught:
            async for _ in session.map(fail_at_odd, range(6), ordered=False):
                pass
    assert caught.value.args == (5,)


async def test_failures_are_collected_in_their_places() -> None:
    async with Session(ScriptedEngine()) as session:
        results = [row async for row in session.map(fail_at_odd, range(6), on_error="collect")]
    assert [row for row in results if isinstance(row, int)] == [0, 2, 4]
    errors = [row for row in results if isinstance(row, ItemError)]
    assert [results.index(error) for error in errors] == [1, 3, 5]
    for index, error in zip((1, 3, 5), errors, strict=True):
        assert (error.index, error.row) == (index, index)
        assert isinstance(error.__cause__, KeyError)
        assert f"item {index}" in str(error) and "KeyError" in str(error)
    assert session.summary.num_failed_items == 3


async def test_long_rows_are_cut_in_notes() -> None:
    async with Session(ScriptedEngine()) as session:
        with pytest.raises(TypeError) as caught:
            async for _ in session.map(fail_at_odd, ["x" * 5000]):
                pass
    (note,) = caught.value.__notes__
    assert note.startswith("in item 0: 'xxx") and len(note) < 300


async def test_an_item_that_is_cancelled_from_inside_fails_alone() -> None:
    @operator
    async def cancel_at_one(row: int) -> int:
        if row == 1:
            raise asyncio.CancelledError
        return row

    async with Session(ScriptedEngine()) as session:
        results = [r async for r in session.map(cancel_at_one, range(3), on_error="collect")]
    assert [results[0], results[2]] == [0, 2]
    assert isinstance(results[1].__cause__, RefCancelled)


def broken_source() -> Iterator[int]:
    yield 0
    yield 2
    raise OSError("disk")


async def broken_async_source() -> AsyncIterator[int]:
    for row in broken_source():
        yield row


@pytest.mark.parametrize("source", [broken_source, broken_async_source])
@pytest.mark.parametrize("on_error", ["raise", "collect"])
@pytest.mark.parametrize("ordered", [False, True])
async def test_a_source_that_fails(source: Any, on_error: Any, ordered: bool) -> None:
    taken = []
    async with Session(ScriptedEngine()) as session:
        with pytest.raises(OSError, match="disk") as caught:
            async for row in session.map(fail_at_odd, source(), on_error=on_error, ordered=ordered):
                taken.append(row)
    assert sorted(taken) == [0, 2]  # what was read before is not lost
    assert "broken_source" in {entry.name for entry in caught.traceback}


@pytest.mark.parametrize("on_error", ["raise", "collect"])
async def test_a_source_that_is_cancelled_from_inside_is_no_normal_end(on_error: Any) -> None:
    async def source() -> AsyncIterator[int]:
        yield 0
        task = asyncio.create_task(asyncio.sleep(10))
        task.cancel()
        await task

    taken = []
    async with Session(ScriptedEngine()) as session:
        with pytest.raises((RefCancelled, asyncio.CancelledError)):
            async for row in session.map(fail_at_odd, source(), on_error=on_error):
                taken.append(row)
    assert taken == [0]


async def test_a_source_that_is_no_iterable() -> None:
    async with Session(ScriptedEngine()) as session:
        with pytest.raises(TypeError, match="int"):
            async for _ in session.map(fail_at_odd, 7):  # type: ignore[arg-type]
                pass


@pytest.mark.parametrize("on_error", ["raise", "collect"])
async def test_an_engine_that_does_not_start_ends_the_run(on_error: Any) -> None:
    class Broken(ScriptedEngine):
        async def start(self) -> None:
            self.num_starts += 1
            raise EngineStartError("no such model")

    engine = Broken()
    async with Session(engine) as session:
        with pytest.raises(EngineStartError, match="no such model"):
            async for _ in session.map(ask, itertools.count(), on_error=on_error):
                pass
    assert engine.num_starts == 1


# --- the end of the loop -------------------------------------------------------------------------


async def settled() -> None:
    """What a dropped map leaves behind is cleaned up by the loop, not by the one who dropped it."""
    gc.collect()
    await ticks(40)


@pytest.mark.parametrize("ordered", [False, True])
async def test_break_cancels_what_is_open(ordered: bool) -> None:
    engine = ScriptedEngine(held)
    async with Session(engine) as session:
        async for row in session.map(hold, range(5), ordered=ordered):
            assert row == 0
            await until(lambda: engine.num_open == 4)
            break
        await settled()
        assert sorted(log) == [f"end {row}" for row in range(5)]
        assert (engine.num_open, len(engine.aborted)) == (0, 4)
        assert len(asyncio.all_tasks()) == 2  # this one and the session's supervisor


async def test_break_out_of_indexed() -> None:
    engine = ScriptedEngine(held)
    async with Session(engine) as session:
        async for index, row in session.map(hold, range(5)).indexed():
            assert (index, row) == (0, 0)
            await until(lambda: engine.num_open == 4)
            break
        await settled()
        assert (engine.num_open, len(engine.aborted)) == (0, 4)
        assert len(asyncio.all_tasks()) == 2


async def test_an_error_in_the_loop_cancels_what_is_open() -> None:
    engine = ScriptedEngine(held)
    async with Session(engine) as session:
        with pytest.raises(ZeroDivisionError):
            async for _ in session.map(hold, range(5)):
                await until(lambda: engine.num_open == 4)
                raise ZeroDivisionError
        await settled()
        assert (engine.num_open, len(engine.aborted)) == (0, 4)


async def test_a_map_that_is_dropped_unused() -> None:
    engine = ScriptedEngine(held)
    async with Session(engine) as session:
        session.map(hold, range(1, 5))
        await settled()
        assert engine.num_open == 0
        mapped = session.map(hold, range(1, 5))
        await until(lambda: engine.num_open == 4)
        del mapped
        await settled()
        assert engine.num_open == 0
        assert len(asyncio.all_tasks()) == 2


async def test_a_map_that_is_held_on_to_is_continued() -> None:
    async with Session(ScriptedEngine(Gate(is_open=True))) as session:
        mapped = session.map(ask, range(5))
        async for _ in mapped:
            break
        await settled()
        assert [text async for text in mapped] == ["row 1", "row 2", "row 3", "row 4"]
        assert [text async for text in mapped] == []


async def test_leaving_the_context_manager_waits_for_the_clean_up() -> None:
    engine = ScriptedEngine(held)
    async with Session(engine) as session:
        async with session.map(hold, range(5)) as results:
            async for row in results:
                assert row == 0
                await until(lambda: engine.num_open == 4)
                break
        assert sorted(log) == [f"end {row}" for row in range(5)]
        assert engine.num_open == 0
        await results.aclose()
        assert [row async for row in results] == []


async def test_the_loop_is_cancelled() -> None:
    engine = ScriptedEngine(held)

    async def program(session: Session) -> None:
        async for _ in session.map(hold, range(1, 5)):
            pass

    async with Session(engine) as session:
        task = asyncio.create_task(program(session))
        await until(lambda: engine.num_open == 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(log) == [f"end {row}" for row in range(1, 5)]
        assert engine.num_open == 0


async def test_a_source_is_closed_by_a_break() -> None:
    async def source() -> AsyncIterator[int]:
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            log.append("source closed")

    async with Session(ScriptedEngine()) as session:
        async for _ in session.map(slower_first, source()):
            break
        await settled()
        assert log == ["source closed"]


async def test_maps_closed_at_any_moment_do_not_use_up_the_admission() -> None:
    async with Session(ScriptedEngine(Gate(is_open=True))) as session:
        for num_ticks in range(6):
            for _ in range(10):
                mapped = session.map(ask, range(100))
                await ticks(num_ticks)
                await mapped.aclose()
        async with asyncio.timeout(60):
            assert len([text async for text in session.map(ask, range(20))]) == 20


# --- bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
async def test_an_infinite_source_is_read_a_bounded_way_ahead(ordered: bool) -> None:
    most_read = 0

    def source() -> Iterator[int]:
        nonlocal most_read
        for most_read in itertools.count(1):
            yield most_read - 1

    async with Session(ScriptedEngine(Gate(is_open=True))) as session:
        mapped = session.map(ask, source(), read_ahead=5, ordered=ordered)
        for taken in range(50):
            await anext(mapped)
            await ticks(5)
            assert most_read <= taken + 1 + 5 + 1  # one is in the pump's hand
        await mapped.aclose()


async def test_memory_does_not_grow_with_the_rows() -> None:
    class Row:
        live: ClassVar[weakref.WeakSet[Row]] = weakref.WeakSet()

        def __init__(self, number: int) -> None:
            self.number = number
            self.live.add(self)

    @operator
    async def heavy(row: Row) -> int:
        await gather(ask(row.number), slower_first(9))
        return row.number

    most_live = 0
    async with Session(ScriptedEngine()) as session:
        async for _ in session.map(heavy, (Row(number) for number in range(400)), read_ahead=10):
            most_live = max(most_live, len(Row.live))
        assert most_live <= 40
        await ticks()
        gc.collect()
        assert len(Row.live) == 0


async def test_finished_items_wait_for_a_slow_first_one_within_bounds() -> None:
    gate = asyncio.Event()
    opened: list[int] = []

    @operator
    async def slow_first(row: int) -> int:
        opened.append(row)
        if row == 0:
            await gate.wait()
        return row

    async with Session(ScriptedEngine()) as session:
        mapped = session.map(slow_first, itertools.count(), read_ahead=7)
        await ticks(100)
        assert opened == list(range(7))
        gate.set()
        assert [await anext(mapped) for _ in range(20)] == list(range(20))
        await mapped.aclose()


# --- nesting -------------------------------------------------------------------------------------


async def test_nested_maps() -> None:
    @operator
    async def inner(row: tuple[int, int]) -> str:
        return await ask(row)

    engine = ScriptedEngine(Gate(is_open=True))
    async with Session(engine) as session:

        @operator
        async def outer(row: int) -> list[str]:
            return [t async for t in session.map(inner, ((row, number) for number in range(3)))]

        assert [texts async for texts in session.map(outer, range(3))] == [
            [f"row ({row}, {number})" for number in range(3)] for row in range(3)
        ]
        assert session.summary.num_items == 3


async def test_maps_nested_deeper_and_wider_than_what_may_be_open() -> None:
    tiny = Capacity(kv_tokens=16, block_tokens=4, max_model_tokens=4096, max_requests=4)
    engine = ScriptedEngine(capacity=tiny)
    async with Session(engine) as session:

        @operator
        async def tree(row: tuple[int, ...]) -> int:
            await ask(row)
            if len(row) == 5:
                return 1
            below = session.map(tree, [(*row, number) for number in range(3)], ordered=False)
            return sum([number async for number in below])

        async with asyncio.timeout(60):
            assert [n async for n in session.map(tree, [(0,), (1,), (2,)])] == [81, 81, 81]


async def test_an_inner_failure_comes_out_with_both_rows() -> None:
    async with Session(ScriptedEngine()) as session:

        @operator
        async def outer(row: str) -> list[int]:
            return [number async for number in session.map(fail_at_odd, [0, 2, 3])]

        with pytest.raises(KeyError) as caught:
            async for _ in session.map(outer, ["a"]):
                pass
    assert caught.value.__notes__ == ["in item 2: 3", "in item 0: 'a'"]


async def test_breaking_the_outer_map_ends_the_inner_ones() -> None:
    engine = ScriptedEngine(held)
    async with Session(engine) as session:

        @operator
        async def outer(row: int) -> list[int]:
            return [r async for r in session.map(hold, [row, 10 * row] if row else [0])]

        async for rows in session.map(outer, range(3)):
            assert rows == [0]
            await until(lambda: engine.num_open == 4)
            break
        await settled()
        assert engine.num_open == 0
        assert sorted(log) == ["end 0", "end 1", "end 10", "end 2", "end 20"]
        assert len(asyncio.all_tasks()) == 2


async def test_maps_one_inside_the_loop_over_another() -> None:
    async with Session(ScriptedEngine()) as session:
        async with asyncio.timeout(60):
            found = [
                (a, b)
                async for a in session.map(slower_first, range(9))
                async for b in session.map(slower_first, range(9))
            ]
    assert found == [(a, b) for a in range(9) for b in range(9)]


async def test_two_readers_of_one_map() -> None:
    async with Session(ScriptedEngine()) as session:
        mapped = session.map(slower_first, range(8))

        async def read() -> list[int]:
            return [row async for row in mapped]

        async with asyncio.timeout(60):
            first, second = await asyncio.gather(read(), read())
    assert sorted(first + second) == list(range(8))


# --- maps inside what rows share -----------------------------------------------------------------


async def echo_row(row: int) -> str:
    return (await llm(user(f"part {row}"))).text


@pytest.mark.parametrize("options", [{}, {"rules": (), "share": False, "memo": None}])
@pytest.mark.parametrize("pure", [False, True])
@pytest.mark.parametrize("is_started", [False, True])
@pytest.mark.parametrize("num_rows", [9, 40])
async def test_a_map_inside_a_call_that_all_rows_share(
    options: dict[str, Any], pure: bool, is_started: bool, num_rows: int
) -> None:
    engine = ScriptedEngine(lambda request: request.messages[-1].content)
    async with Session(engine, **options) as session:

        async def corpus() -> list[str]:
            return [text async for text in session.map(echo_row, range(20))]

        shared = operator(pure=pure, version="1")(corpus)()
        if is_started:
            shared.start()

        async def row(number: int) -> int:
            return len(await shared) + number

        async with asyncio.timeout(60):
            found = [each async for each in session.map(row, range(num_rows))]
    assert found == [20 + number for number in range(num_rows)]


async def test_a_generator_of_rows_is_closed_when_no_more_are_wanted() -> None:
    closed: list[str] = []

    def rows() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append("sync")

    async def async_rows() -> AsyncIterator[int]:
        try:
            for number in range(1000):
                yield number
        finally:
            closed.append("async")

    async with Session(ScriptedEngine()) as session:
        for source in (rows(), async_rows()):
            async with session.map(echo_row, source, read_ahead=2) as results:
                async for _ in results:
                    break
    assert closed == ["sync", "async"]


async def test_a_row_that_cannot_be_shown_still_fails_by_its_own_error() -> None:
    class Row:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    async def fail(row: Row) -> None:
        raise ValueError("the row's own")

    async with Session(ScriptedEngine()) as session:
        with pytest.raises(ValueError, match="the row's own") as caught:
            async for _ in session.map(fail, [Row()]):
                pass
    assert caught.value.__notes__ == ["in item 0: <a Row whose repr raised RuntimeError>"]


@pytest.mark.parametrize("error", [StopAsyncIteration, StopIteration])
@pytest.mark.parametrize("ordered", [True, False])
async def test_a_row_that_raises_the_end_of_an_iteration_does_not_end_the_map(
    error: type[Exception], ordered: bool
) -> None:
    @operator
    async def row(number: int) -> int:
        if number == 2:
            raise error
        return number

    async with Session(ScriptedEngine()) as session:
        with pytest.raises(RuntimeError, match="raised Stop") as caught:
            async for _ in session.map(row, range(5), ordered=ordered):
                pass
        assert caught.value.__notes__ == ["in item 2: 2"]
        with pytest.raises(RuntimeError, match="raised Stop"):
            async for _ in session.map(row, range(5), ordered=ordered).indexed():
                pass
        found = [each async for each in session.map(row, range(5), on_error="collect")]
        assert [number for number in found if isinstance(number, int)] == [0, 1, 3, 4]


@pytest.mark.parametrize("options", [{}, {"rules": (), "share": False, "memo": None}])
async def test_rows_that_meet_before_their_first_call(options: dict[str, Any]) -> None:
    meet = asyncio.Barrier(20)

    async def row(number: int) -> str:
        await meet.wait()
        return await echo_row(number)

    engine = ScriptedEngine(lambda request: request.messages[-1].content)
    async with asyncio.timeout(60), Session(engine, **options) as session:
        found = [text async for text in session.map(row, range(20))]
    assert found == [f"part {number}" for number in range(20)]


async def test_who_stops_waiting_for_a_result_hears_that_this_ended_the_map() -> None:
    async def row(number: int) -> int:
        await asyncio.sleep(0.05)
        return number

    async with Session(ScriptedEngine()) as session:
        results = aiter(session.map(row, range(3)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(results), 0.001)
        with pytest.raises(RefCancelled, match="the wait for its next result was cancelled"):
            await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)


async def test_a_source_that_raises_generator_exit_does_not_end_the_map_silently() -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise GeneratorExit("broken")

    async with Session(ScriptedEngine()) as session:
        with pytest.raises(GeneratorExit):
            async for _ in session.map(echo_row, rows()):
                pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, [1]), "fn is a value of type int"),
        (([1], echo_row), "fn is a value of type list"),
        ((echo_row, 5), "rows is a value of type int"),
    ],
)
async def test_wrong_arguments_are_refused_where_they_are_given(
    arguments: Any, message: str
) -> None:
    async with Session(ScriptedEngine()) as session:
        with pytest.raises(TypeError, match=message):
            session.map(*arguments)
        for read_ahead in (0, 1.5, "x", True):
            with pytest.raises(ValueError, match="read_ahead="):
                session.map(echo_row, [1], read_ahead=read_ahead)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="make it an `async def` function"):
            async for _ in session.map(lambda row: row, [1]):
                pass
        with pytest.raises(TypeError, match="is not a function"):
            await session.run(5)  # type: ignore[arg-type]


async def test_a_commit_that_raises_anything_reaches_the_map() -> None:
    class Odd(BaseException):
        pass

    class Broken(MemoryStore):
        def commit(self) -> Any:
            raise Odd("commit")

    async with asyncio.timeout(60):
        with pytest.raises(Odd):
            async with Session(ScriptedEngine(), memo=Broken()) as session:
                async for _ in session.map(echo_row, [1, 2]):
                    pass
