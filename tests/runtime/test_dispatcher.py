"""The dispatcher: what stands ready goes to its engine when its turn has come, and all comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from gate import Gate, ticks, until
from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents import Ref, Session, gather, llm, operator, user
from helium_agents.engines.engine import Capacity, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.errors import RequestError, SessionError
from helium_agents.optimizer.park import Park
from helium_agents.optimizer.schedule import Asked, EverythingOpen, Queue
from helium_agents.optimizer.step_cost import STEP_COSTS, StepCost
from helium_agents.runtime.map.map_run import MOST_OPEN

pytestmark = pytest.mark.usefixtures("quiet_loop")


def slots(max_requests: int) -> Capacity:
    return Capacity(4096, 16, max_model_tokens=10**6, max_requests=max_requests)


class Open:
    """Counts how many calls of an item's function are open."""

    def __init__(self, fn: Callable[[Any], Awaitable[Any]]) -> None:
        self._fn = fn
        self.num_open = self.most_open = 0

    async def __call__(self, row: Any) -> Any:
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            return await self._fn(row)
        finally:
            self.num_open -= 1


async def ask(row: Any) -> str:
    return (await llm(user(str(row)), max_tokens=4)).text


async def two_turns(row: Any) -> str:
    first = await ask(f"{row} first")
    return f"{first} {await ask(f'{row} second')}"


async def drained(found: Any) -> list[Any]:
    return [result async for result in found]


def rows_of(engine: ScriptedEngine) -> list[str]:
    return [request.messages[-1].content for request in engine.requests]


# --- everything open -----------------------------------------------------------------------------


async def test_an_engine_has_its_slots_full_and_a_short_queue() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate, capacity=slots(4))
    async with Session(engine) as session:
        opened = Open(ask)
        draining = asyncio.create_task(drained(session.map(opened, range(50))))
        await until(lambda: engine.num_open)
        await ticks(300)
        assert (opened.num_open, engine.num_open) == (50, 12)
        assert "requests that wait for their turn: 38" in session.waiting()
        gate.open()
        assert len(await draining) == 50
    assert engine.most_open == 12
    assert rows_of(engine) == [str(i) for i in range(50)], "first come, first served"


async def test_each_model_has_room_of_its_own() -> None:
    gate = Gate()
    small, large = ScriptedEngine(gate, capacity=slots(1)), ScriptedEngine(lambda _: "large")
    async with Session({"small": small, "large": large}):
        held = [llm(user(str(i)), model="small").start() for i in range(20)]
        await until(lambda: small.num_open)
        assert (await llm(user("q"), model="large")).text == "large"
        gate.open()
        await gather(*held)


async def test_a_map_has_so_many_items_open_and_no_more() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine) as session:
        opened = Open(ask)
        draining = asyncio.create_task(drained(session.map(opened, range(MOST_OPEN + 100))))
        await until(lambda: engine.num_open == MOST_OPEN)
        await ticks(300)
        assert opened.num_open == MOST_OPEN
        assert "waits until an item ends" in session.waiting()
        gate.open()
        assert len(await draining) == MOST_OPEN + 100
    assert opened.most_open == MOST_OPEN


async def test_items_that_wait_for_one_that_is_not_open() -> None:
    last_is_there = asyncio.Event()

    async def barrier(row: int) -> int:
        if row == MOST_OPEN + 1:
            last_is_there.set()
        await last_is_there.wait()
        return row

    async with asyncio.timeout(60), Session(ScriptedEngine()) as session:
        assert len(await drained(session.map(barrier, range(MOST_OPEN + 2)))) == MOST_OPEN + 2


async def test_read_ahead_bounds_what_is_open_too() -> None:
    opened = Open(ask)
    async with Session(ScriptedEngine()) as session:
        assert len(await drained(session.map(opened, range(50), read_ahead=3))) == 50
    assert opened.most_open == 3


async def test_a_request_that_waits_for_its_turn_can_be_left() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate, capacity=slots(1))
    async with Session(engine):
        held = [llm(user(str(i))).start() for i in range(9)]
        await until(lambda: engine.num_open == 9)
        waiting = asyncio.ensure_future(llm(user("waiting")))
        later = asyncio.ensure_future(llm(user("later")))
        await ticks()
        waiting.cancel()
        gate.open()
        assert (await later).text == "later"
        await gather(*held)
    assert "waiting" not in rows_of(engine)


async def test_a_timeout_counts_from_when_the_turn_has_come() -> None:
    async def script(_: Request) -> str:
        await asyncio.sleep(0.02)
        return "done"

    async with Session(ScriptedEngine(script, capacity=slots(1))) as session:
        rows = session.map(lambda row: llm(user(str(row)), timeout=0.2), range(180))
        assert len(await drained(rows)) == 180  # 20 rounds of 9, 0.4 s in all


# --- few open ------------------------------------------------------------------------------------


class Turns(ScriptedEngine):
    """Notes the rows whose requests are open, or which have had one of their two turns."""

    def __init__(self) -> None:
        super().__init__(self._take_turn)
        self.begun: set[str] = set()
        self.most_begun = 0

    async def _take_turn(self, request: Request) -> str:
        row, turn = request.messages[-1].content.split()
        self.begun.add(row)
        self.most_begun = max(self.most_begun, len(self.begun))
        await asyncio.sleep(0.001)
        if turn == "second":
            self.begun.remove(row)
        return turn


@pytest.mark.parametrize("max_open", [1, 2, 7])
async def test_so_many_items_have_calls_on_the_engine(max_open: int) -> None:
    engine = Turns()
    async with Session(engine, max_open=max_open) as session:
        found = await drained(session.map(two_turns, range(20)))
    assert found == ["first second"] * 20
    assert engine.most_begun == max_open


def test_pauses_between_an_items_calls_open_no_other() -> None:
    """The engine has nothing at many moments, but never for long."""
    engine = Turns()

    async def row(number: int) -> None:
        for turn in ("first", "next", "then", "later", "second"):
            await ask(f"{number} {turn}")
            await asyncio.sleep(0.03)

    async def main() -> None:
        async with Session(engine, max_open=1) as session:
            await drained(session.map(row, range(3)))

    run_in_virtual_time(main())  # a busy machine makes pauses longer
    assert engine.most_begun == 1


async def test_calls_outside_of_items_are_never_held_back() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine, max_open=1) as session:
        draining = asyncio.create_task(drained(session.map(ask, range(5))))
        await until(lambda: engine.num_open == 1)
        outside = llm(user("outside")).start()
        await until(lambda: engine.num_open == 2)
        assert rows_of(engine) == ["0", "outside"]
        gate.open()
        await outside
        assert len(await draining) == 5


async def test_a_nested_map_counts_as_its_item() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)

    async def outer(row: int) -> int:
        return len(await drained(session.map(ask, [f"{row}.{i}" for i in range(3)])))

    async with Session(engine, max_open=2) as session:
        draining = asyncio.create_task(drained(session.map(outer, range(4))))
        await until(lambda: engine.num_open == 6)
        await ticks(100)
        assert sorted(rows_of(engine)) == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
        gate.open()
        assert await draining == [3] * 4


async def test_what_an_open_item_awaits_counts_for_it() -> None:
    """Asked first by a row that has to wait, then wanted by one that is open."""

    async def script(request: Request) -> str:
        if request.messages[-1].content == "0 first":
            await ticks(100)
        return "done"

    engine = ScriptedEngine(script)

    async def row(number: int) -> Any:
        if number == 0:
            await ask("0 first")
            return await ask("shared")
        if number == 2:
            return await ask("shared")
        return await ask(str(number))

    async with Session(engine, max_open=1) as session:
        assert await drained(session.map(row, range(3))) == ["done"] * 3
    assert rows_of(engine) == ["0 first", "shared", "1"]


async def test_an_open_item_may_wait_for_one_that_is_not() -> None:
    refs: dict[int, Ref[str]] = {}

    @operator
    async def produce(number: int) -> str:
        return await ask(f"of {number}")

    async def row(number: int) -> str:
        if number == 0:
            await ask("0")
            await until(lambda: 5 in refs)
            return await refs[5]
        refs[number] = produce(number)
        return await refs[number]

    engine = ScriptedEngine(lambda request: request.messages[-1].content)
    async with asyncio.timeout(60), Session(engine, max_open=1) as session:
        assert (await drained(session.map(row, range(6))))[0] == "of 5"


async def test_failed_and_given_up_items_make_room() -> None:
    def script(request: Request) -> str:
        if request.messages[-1].content.startswith("bad"):
            raise RequestError("no")
        return "fine"

    async with asyncio.timeout(60), Session(ScriptedEngine(script), max_open=1) as session:
        found = await drained(session.map(ask, ["bad 0", "bad 1", "2"], on_error="collect"))
        assert found[2] == "fine"
        for _ in range(3):
            async for _ in session.map(two_turns, map(str, range(10))):
                break
        assert await drained(session.map(two_turns, "ab")) == ["fine fine"] * 2


async def test_work_that_an_item_leaves_behind_holds_no_place() -> None:
    async def leave_behind(row: int) -> None:
        llm(user(f"left {row}")).start()

    async with asyncio.timeout(60), Session(ScriptedEngine(), max_open=1) as session:
        await drained(session.map(leave_behind, range(5)))
        await asyncio.sleep(0.01)
        assert len(await drained(session.map(two_turns, range(5)))) == 5


rows_of_items = st.lists(st.lists(st.sampled_from("abcdef"), max_size=3), max_size=12)


@settings(max_examples=30, deadline=None)
@given(
    rows_of_items,
    st.sampled_from([None, 1, 2, 5]),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([1, 3, 1024]),
)
def test_all_rows_finish_whatever_is_open(
    rows: list[list[str]], max_open: int | None, num_slots: int, is_ordered: bool, read_ahead: int
) -> None:
    async def item(row: list[str]) -> int:
        for name in row:
            await gather(ask(name), ask(f"{name} {len(row)}"))
        return len(row)

    async def main() -> list[tuple[int, int]]:
        engine = ScriptedEngine(capacity=slots(num_slots))
        async with Session(engine, max_open=max_open) as session:
            results = session.map(item, rows, ordered=is_ordered, read_ahead=read_ahead)
            return [pair async for pair in results.indexed()]

    found = asyncio.run(asyncio.wait_for(main(), 60))
    assert sorted(found) == [(index, len(row)) for index, row in enumerate(rows)]
    assert not is_ordered or found == sorted(found)


async def test_how_many_must_be_a_number() -> None:
    with pytest.raises(SessionError, match="max_open=0 must be a whole number, at least 1"):
        Session(ScriptedEngine(), max_open=0)


# --- priorities ----------------------------------------------------------------------------------


async def test_what_a_schedule_says_of_priority_is_told_to_the_engine() -> None:
    class LastFirst(EverythingOpen):
        def choose(self, queue: Queue) -> Asked | None:
            asked = super().choose(queue)
            if asked is not None and asked.item is not None:
                asked.priority = -asked.item
            return asked

    engine = ScriptedEngine()
    async with Session(engine, schedule=LastFirst()) as session:
        await drained(session.map(ask, range(3)))
        await ask("no row")
    assert [request.priority for request in engine.requests] == [0, -1, -2, 0]


def test_when_a_session_ends_no_timer_of_it_is_left() -> None:
    class OneByOne(EverythingOpen):
        def choose(self, queue: Queue) -> Asked | None:
            return None if queue.running else super().choose(queue)

        def look_again_s(self, queue: Queue) -> float | None:
            return queue.now_s + 1000.0

    async def main() -> None:
        async with Session(ScriptedEngine(latency_s=1.0), schedule=OneByOne()) as session:
            await drained(session.map(ask, range(3)))
        end_s = asyncio.get_running_loop().time()
        assert end_s < 10
        await asyncio.to_thread(time.sleep, 0.01)  # the clock would jump to the next timer
        assert asyncio.get_running_loop().time() == end_s

    run_in_virtual_time(main())


class AskedForItsCost(ScriptedEngine):
    """Counts how often somebody wants to know what a step takes."""

    num_asked = 0

    @property
    def cost(self) -> StepCost:
        self.num_asked += 1
        return STEP_COSTS["cpu-medium"]


def test_parked_sessions_do_not_each_ask_what_a_step_costs() -> None:
    """An engine may read it from what its steps have told."""

    async def agent(row: int) -> None:
        text = f"agent {row} " * 40
        for turn in range(6):
            await llm(user(text), max_tokens=8)
            await asyncio.sleep(0.2)
            text += f"turn {turn} of {row} " * 20

    async def num_asked_a_call(num_rows: int) -> float:
        engine = AskedForItsCost(capacity=Capacity(100_000, 16, max_model_tokens=10_000))
        async with Session(engine, schedule=Park()) as session:
            async for _ in session.map(agent, range(num_rows)):
                pass
        return engine.num_asked / (6 * num_rows)

    few, many = (run_in_virtual_time(num_asked_a_call(number)) for number in (5, 50))
    assert 0 < many <= 1.5 * few
