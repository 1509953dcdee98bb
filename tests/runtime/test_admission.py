"""Admission: as many items open as fit, never none, and never one that another waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from gate import ticks, until
from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents import Session, gather, llm, operator, user
from helium_agents.engines.engine import Capacity, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import RequestError
from helium_agents.runtime.admission import Admission, WorkingSet, block_hashes

BLOCK = 4


def capacity(num_blocks: int) -> Capacity:
    return Capacity(num_blocks * BLOCK, BLOCK, max_model_tokens=10**6, max_requests=256)


def long_text(name: Any, num_blocks: int) -> str:
    """A prompt of so many blocks, its role included, that shares none with another name's."""
    return " ".join(f"{name}-{i}" for i in range(num_blocks * BLOCK - 1))


class Open:
    """Counts how many calls of an item's function are open."""

    def __init__(self, fn: Callable[[Any], Awaitable[Any]]) -> None:
        self._fn = fn
        self.num_open = 0
        self.history: list[int] = []

    async def __call__(self, row: Any) -> Any:
        self.num_open += 1
        self.history.append(self.num_open)
        try:
            return await self._fn(row)
        finally:
            self.num_open -= 1


class Holding:
    """A script that holds every answer until it is let go."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    async def __call__(self, request: Request) -> str:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        await future
        return "done"

    def let_one_go(self) -> None:
        self.waiting.pop(0).set_result(None)


async def ask(row: str) -> str:
    return (await llm(user(row), max_tokens=1)).text


async def aiter_to_list(found: Any) -> list[Any]:
    return [result async for result in found]


async def run_all(
    rows: list[Any], engine: ScriptedEngine, **options: Any
) -> tuple[list[Any], list[int]]:
    """The results, and how many items were open each time that one was opened."""
    opened = Open(ask)
    async with Session(engine) as session:
        found = await aiter_to_list(session.map(opened, rows, **options))
    return found, opened.history


@pytest.fixture
async def started() -> AsyncIterator[Callable[..., Awaitable[ScriptedEngine]]]:
    """Makes engines that were started before any session."""
    engines: list[ScriptedEngine] = []

    async def started(script: Any = None, num_blocks: int | None = None) -> ScriptedEngine:
        limit = None if num_blocks is None else capacity(num_blocks)
        engines.append(ScriptedEngine(script, capacity=limit))
        await engines[-1].start()
        return engines[-1]

    yield started
    for engine in engines:
        await engine.close()


# --- through a session ---------------------------------------------------------------------------


async def open_over_time(rows: list[str], engine: ScriptedEngine, script: Holding) -> list[int]:
    """How many items are open, each time before an answer is let go."""
    opened = Open(ask)
    seen = []
    async with Session(engine) as session:
        draining = asyncio.create_task(aiter_to_list(session.map(opened, rows)))
        for _ in rows:
            await until(lambda: script.waiting)
            await ticks(200)
            seen.append(opened.num_open)
            script.let_one_go()
        assert await draining == ["done"] * len(rows)
    return seen


async def test_opens_as_many_as_fit_once_it_knows_what_they_need(started: Any) -> None:
    # each item brings in 8 blocks; 40 hold five of them
    script = Holding()
    engine = await started(script, num_blocks=40)
    seen = await open_over_time([long_text(i, 8) for i in range(40)], engine, script)
    assert seen[0] == 8, "at first an eighth each"
    assert seen[4:-4] == [5] * 32


async def test_what_items_share_is_counted_once(started: Any) -> None:
    # 8 blocks each, of which 7 are the same in all: the first brings in 8, the others one
    shared = long_text("shared", 7)
    script = Holding()
    engine = await started(script, num_blocks=40)
    rows = [f"{shared} {i} {i} {i} {i}" for i in range(120)]
    seen = await open_over_time(rows, engine, script)
    assert 30 <= max(seen) <= 33, "40 less the 7 that all share"


@pytest.mark.parametrize("num_blocks", [1, 3, 8])
async def test_an_item_larger_than_everything_runs_alone(started: Any, num_blocks: int) -> None:
    engine = await started(num_blocks=num_blocks)
    found, history = await run_all([long_text(i, 20) for i in range(20)], engine)
    assert len(found) == 20
    assert history[8:] == [1] * 12


async def test_before_the_engine_runs_few_items_are_open() -> None:
    starting = asyncio.Event()

    class Slow(ScriptedEngine):
        async def start(self) -> None:
            await starting.wait()
            await super().start()

    script = Holding()
    opened = Open(ask)
    async with Session(Slow(script)) as session:  # without a limit, as will turn out
        draining = asyncio.create_task(aiter_to_list(session.map(opened, map(str, range(50)))))
        await ticks(200)
        assert opened.num_open == 8
        starting.set()
        await ticks(400)
        assert opened.num_open == 50, "at once, not when the first has finished"
        while script.waiting:
            script.let_one_go()
        assert await draining == ["done"] * 50


async def test_without_a_limit_there_is_a_limit(started: Any) -> None:
    script = Holding()
    engine = await started(script)
    seen = await open_over_time([str(i) for i in range(300)], engine, script)
    assert max(seen) == 256


async def test_read_ahead_bounds_what_is_open_too() -> None:
    found, history = await run_all([str(i) for i in range(50)], ScriptedEngine(), read_ahead=3)
    assert len(found) == 50
    assert max(history) == 3


async def test_nested_maps_are_never_held_back() -> None:
    engine = ScriptedEngine(capacity=capacity(2))

    @operator
    async def outer(row: int) -> int:
        rows = [long_text(f"{row}.{i}", 4) for i in range(5)]
        return len(await aiter_to_list(session.map(middle, rows)))

    @operator
    async def middle(row: str) -> list[str]:
        return await aiter_to_list(session.map(ask, [row, f"{row} again"]))

    async with Session(engine) as session:
        assert await aiter_to_list(session.map(outer, range(6))) == [5] * 6
    assert engine.num_requests == 60


async def test_an_item_may_wait_for_several_maps_of_its_own(started: Any) -> None:
    engine = await started(num_blocks=1)

    async def outer(row: int) -> int:
        maps = [
            session.map(ask, [long_text(f"{row}.{kind}.{i}", 3) for i in range(3)]) for kind in "ab"
        ]
        return sum(map(len, await gather(*map(aiter_to_list, maps))))

    async with Session(engine) as session:
        assert await aiter_to_list(session.map(outer, range(4))) == [6] * 4


async def test_failing_items_make_room(started: Any) -> None:
    def script(request: Request) -> str:
        raise RequestError("no")

    engine = await started(script, num_blocks=2)
    rows = [long_text(i, 3) for i in range(20)]
    found, history = await run_all(rows, engine, on_error="collect", ordered=False)
    assert len(found) == 20
    assert history[-1] == 1


async def test_two_maps_share_the_room(started: Any) -> None:
    engine = await started(num_blocks=9)
    opened = Open(ask)
    async with Session(engine) as session:
        rows = [[long_text(f"{kind}{i}", 4) for i in range(20)] for kind in "ab"]
        found = await gather(*(aiter_to_list(session.map(opened, mine)) for mine in rows))
    assert [len(results) for results in found] == [20, 20]
    assert max(opened.history[16:]) <= 3  # two fit; a map that has none open may open one


async def test_a_map_that_was_given_up_makes_room_for_the_next(started: Any) -> None:
    script = Holding()
    engine = await started(script, num_blocks=2)
    async with Session(engine) as session:
        first = session.map(ask, [long_text(f"a{i}", 4) for i in range(20)])
        waiting = asyncio.create_task(anext(first))
        await until(lambda: script.waiting)
        waiting.cancel()
        await first.aclose()
        script.waiting.clear()
        second = asyncio.create_task(aiter_to_list(session.map(ask, ["b"])))
        await until(lambda: script.waiting)
        script.let_one_go()
        assert await second == ["done"]


rows_of_items = st.lists(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 12)), max_size=3), max_size=12
)


@settings(max_examples=30, deadline=None)
@given(rows_of_items, st.integers(1, 30), st.booleans(), st.sampled_from([1, 3, 1024]))
def test_all_rows_finish_whatever_fits(
    rows: list[list[tuple[str, int]]], num_blocks: int, is_ordered: bool, read_ahead: int
) -> None:
    async def item(row: list[tuple[str, int]]) -> int:
        for name, blocks in row:
            await llm(user(long_text(name, blocks)))
        return len(row)

    async def main() -> list[tuple[int, int]]:
        engine = ScriptedEngine(capacity=capacity(num_blocks))
        async with Session(engine) as session:
            results = session.map(item, rows, ordered=is_ordered, read_ahead=read_ahead)
            return [pair async for pair in results.indexed()]

    found = asyncio.run(asyncio.wait_for(main(), 60))
    assert sorted(found) == [(index, len(row)) for index, row in enumerate(rows)]
    assert not is_ordered or found == sorted(found)


# --- by itself -----------------------------------------------------------------------------------


class Gated:
    """An `Admission` over so many blocks, and items of it."""

    def __init__(self, num_blocks: int | None, **options: int) -> None:
        self.capacity = None if num_blocks is None else capacity(num_blocks)
        self.is_started = True
        self.admission = Admission(lambda: self.capacity, lambda: self.is_started, **options)

    def try_open(self) -> tuple[asyncio.Task[None], WorkingSet]:
        working_set = WorkingSet()
        return asyncio.create_task(self.admission.open(working_set)), working_set

    async def open(self, first: int, num_blocks: int) -> WorkingSet:
        task, working_set = self.try_open()
        await asyncio.wait_for(task, 5)
        self.touch(working_set, first, num_blocks)
        return working_set

    def touch(self, working_set: WorkingSet, first: int, num_blocks: int) -> None:
        token_ids = range(first * BLOCK, (first + num_blocks) * BLOCK)
        self.admission.touch(working_set, list(token_ids))


async def test_the_first_item_is_always_let_in() -> None:
    gated = Gated(1)
    first = await gated.open(0, 100)
    second, _ = gated.try_open()
    await ticks()
    assert not second.done()
    gated.admission.close(first)
    await ticks()
    assert second.done()


async def test_the_estimate_follows_what_items_bring_in() -> None:
    gated = Gated(100)
    for _ in range(3):  # each brings in 30 blocks
        gated.admission.close(await gated.open(0, 30))
    opened = [await gated.open(1000 * i, 30) for i in range(3)]
    fourth, _ = gated.try_open()
    await ticks()
    assert not fourth.done()
    gated.admission.close(opened[0])
    await ticks()
    assert fourth.done()


async def test_what_open_items_will_yet_bring_in_is_reserved() -> None:
    gated = Gated(100)
    gated.admission.close(await gated.open(0, 40))
    await gated.open(1000, 1)
    await gated.open(2000, 1)
    third, _ = gated.try_open()
    await ticks()
    assert not third.done(), "2 blocks are in use, but 78 more are expected"


async def test_room_that_appears_lets_all_in_who_fit() -> None:
    gated = Gated(100)
    gated.admission.close(await gated.open(0, 10))
    large = await gated.open(0, 100)
    waiting = [gated.try_open()[0] for _ in range(12)]
    await ticks()
    assert not any(task.done() for task in waiting)
    gated.admission.close(large)
    await ticks()
    num_open = sum(task.done() for task in waiting)
    assert 0 < num_open < 12
    for task in waiting:
        task.cancel()


async def test_the_limits_without_capacity() -> None:
    gated = Gated(None, max_open=3, max_open_before_start=2)
    gated.is_started = False
    tasks = [gated.try_open()[0] for _ in range(5)]
    await ticks()
    assert sum(task.done() for task in tasks) == 2
    gated.is_started = True
    gated.admission.engine_started()
    await ticks()
    assert sum(task.done() for task in tasks) == 3
    for task in tasks:
        task.cancel()


async def test_one_who_waits_can_be_cancelled() -> None:
    gated = Gated(1)
    first = await gated.open(0, 9)
    second, _ = gated.try_open()
    third, _ = gated.try_open()
    await ticks()
    second.cancel()
    await ticks()
    gated.admission.close(first)
    await ticks()
    assert second.cancelled() and third.done()


async def test_closing_twice_or_touching_when_closed_is_harmless() -> None:
    gated = Gated(10)
    first = await gated.open(0, 5)
    gated.admission.close(first)
    gated.touch(first, 50, 5)
    second = await gated.open(0, 10)
    gated.admission.close(second)
    await gated.open(0, 1)


# --- blocks --------------------------------------------------------------------------------------

tokens = st.lists(st.integers(0, 2**32 - 1), max_size=40)


@settings(max_examples=200, deadline=None)
@given(tokens, tokens, tokens, st.integers(1, 9))
def test_hashes_are_equal_exactly_for_equal_prefixes(
    prefix: list[int], left: list[int], right: list[int], block_tokens: int
) -> None:
    a, b = prefix + left, prefix + right
    hashes_a, hashes_b = block_hashes(a, block_tokens), block_hashes(b, block_tokens)
    assert len(hashes_a) == len(a) // block_tokens
    for number, (hash_a, hash_b) in enumerate(zip(hashes_a, hashes_b, strict=False), 1):
        end = number * block_tokens
        assert (hash_a == hash_b) == (a[:end] == b[:end])


def test_the_same_block_further_on_is_another() -> None:
    first, second = block_hashes([1, 2, 1, 2], 2)
    assert first != second
    assert block_hashes([1, 2, 1, 2, 9], 2) == [first, second]
