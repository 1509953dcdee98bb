"""Calls that await each other: an error that names them, at the moment when the cycle closes."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext, suppress
from typing import Any

import anyio
import pytest

from helium_agents import Ref, Session, gather, llm, operator, prompt, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import RefMisuse
from helium_agents.graph.task_waits import AWAITED_BY

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
    async with asyncio.timeout(60):
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


# --- tasks that a call starts -------------------------------------------------------------------


Work = Callable[[], Coroutine[Any, Any, Any]]


async def _helium_gather(work: Work) -> Any:
    return await gather(work(), work())


async def _gather(work: Work) -> Any:
    return await asyncio.gather(work(), work())


async def _wait(work: Work) -> Any:
    done, _ = await asyncio.wait([asyncio.ensure_future(work()) for _ in range(2)])
    return [task.result() for task in done]


async def _wait_for(work: Work) -> Any:
    return await asyncio.wait_for(work(), 5)


async def _shield(work: Work) -> Any:
    return await asyncio.shield(work())


async def _as_completed(work: Work) -> Any:
    return [await each for each in asyncio.as_completed([work()])]


async def _task_group(work: Work) -> Any:
    async def run() -> Any:
        return await work()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run()) for _ in range(2)]
    except* RefMisuse as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _anyio_group(work: Work) -> Any:
    try:
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(work)
    except* RefMisuse as errors:
        raise errors.exceptions[0] from None


async def _await_later(work: Work) -> Any:
    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.01)  # by then the task waits already
    return await task


async def _gather_inside(work: Work) -> Any:
    return await asyncio.create_task(_helium_gather(work))


async def _gather_of_tasks_that_wait(work: Work) -> Any:
    async def wait() -> Any:
        return await asyncio.create_task(work())

    return await asyncio.gather(wait(), wait())


WAYS_TO_AWAIT = [
    _helium_gather, _gather, _wait, _wait_for, _shield, _as_completed, _task_group, _anyio_group,
    _await_later, _gather_inside, _gather_of_tasks_that_wait,
]  # fmt: skip


@pytest.mark.parametrize("is_pure", [True, False])
@pytest.mark.parametrize("with_session", [True, False])
@pytest.mark.parametrize("await_all", WAYS_TO_AWAIT)
async def test_a_cycle_through_tasks_that_are_awaited(
    await_all: Callable[[Work], Awaitable[Any]], is_pure: bool, with_session: bool
) -> None:
    refs: dict[str, Ref[Any]] = {}

    async def upper() -> Any:
        async def fetch() -> Any:
            await asyncio.sleep(0)
            return await refs["lower"]

        return await await_all(fetch)

    async def lower() -> Any:
        return await refs["upper"]

    options: dict[str, Any] = {"pure": True, "version": "1"} if is_pure and with_session else {}

    async with Session(ScriptedEngine()) if with_session else nullcontext():
        refs["upper"] = operator(**options)(upper)()
        refs["lower"] = operator(**options)(lower)()
        for error in await errors_of(refs["upper"], refs["lower"]):
            assert "upper(...)" in str(error) and "lower(...)" in str(error)


async def test_a_stream_whose_reader_is_its_own_input() -> None:
    refs: list[Ref[Any]] = []

    @operator
    async def reader() -> Any:
        async def read() -> list[str]:
            return [piece async for piece in llm(user(prompt("{it}", it=refs[0]))).stream()]

        task = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        return await task

    async with Session(ScriptedEngine()):
        refs.append(reader())
        await errors_of(refs[0])


@pytest.mark.parametrize("is_pure", [True, False])
@pytest.mark.parametrize("with_session", [True, False])
async def test_a_worker_that_a_call_has_started_may_await_that_call(
    is_pure: bool, with_session: bool
) -> None:
    """asyncio answers: nobody that the call waits for waits for it."""
    requests: asyncio.Queue[tuple[Awaitable[Any], asyncio.Future[Any]]] = asyncio.Queue()
    workers: list[asyncio.Task[None]] = []

    async def work() -> None:
        while True:
            awaitable, answer = await requests.get()
            answer.set_result(await awaitable)

    async def node(number: int) -> int:
        if not workers:
            workers.append(asyncio.create_task(work()))
        await asyncio.sleep(0.1 if number == 0 else 0)
        return number

    async def ask(awaitable: Awaitable[Any]) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await requests.put((awaitable, answer))
        return await answer

    options: dict[str, Any] = {"pure": True, "version": "1"} if is_pure and with_session else {}
    call = operator(**options)(node)
    async with asyncio.timeout(60), Session(ScriptedEngine()) if with_session else nullcontext():
        first = call(0)
        running = asyncio.ensure_future(first)
        await asyncio.sleep(0.01)
        assert await ask(first) == 0
        assert await running == 0
        assert await ask(call(1)) == 1
        workers[0].cancel()
        await asyncio.wait(workers)


async def test_a_task_that_outlives_its_call_may_await_the_result() -> None:
    tasks: list[asyncio.Task[Any]] = []

    @operator
    async def call() -> str:
        async def report() -> str:
            return f"reported {await refs[0]}"

        tasks.append(asyncio.create_task(report()))
        await asyncio.sleep(0.05)
        return "done"

    refs = [call()]
    async with asyncio.timeout(60):
        assert await refs[0] == "done"
        assert await tasks[0] == "reported done"


@pytest.mark.parametrize("options", [{}, PLAIN])
async def test_a_worker_of_an_ended_call_may_make_an_equal_one(options: dict[str, Any]) -> None:
    found: list[str] = []

    @operator(pure=True, version="1")
    async def call(name: str) -> str:
        async def again() -> None:
            await asyncio.sleep(0.02)
            found.append(await call(name))

        if not tasks:
            tasks.append(asyncio.create_task(again()))
        return name

    tasks: list[asyncio.Task[None]] = []
    async with asyncio.timeout(60), Session(ScriptedEngine(), **options):
        assert await call("a") == "a"
        await tasks[0]
    assert found == ["a"]


async def test_who_is_first_ends_the_wait_for_the_other() -> None:
    """The second would wait for the call itself, which goes on with the first."""
    refs: list[Ref[str]] = []

    async def itself() -> str:
        return await refs[-1]

    @operator
    async def first_completed() -> str:
        tasks = [asyncio.create_task(asyncio.sleep(0.05, "fast")), asyncio.create_task(itself())]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        others.append(tasks[1])
        return done.pop().result()

    @operator
    async def cancelled_group() -> str:
        async def fast() -> None:
            await asyncio.sleep(0.05)
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(itself)
            group.start_soon(fast)
        return "fast"

    others: list[asyncio.Task[str]] = []
    for call in (first_completed, cancelled_group):
        refs.append(call())
        async with asyncio.timeout(60):
            assert await refs[-1] == "fast"
    assert await others[0] == "fast"


class Other(Exception):
    """What another member of a group raises."""


async def _fail() -> None:
    await asyncio.sleep(0.05)
    raise Other


async def _wait_a_while(task: asyncio.Task[Any]) -> None:
    await asyncio.wait([task], timeout=0.05)


async def _gather_with_one_that_fails(task: asyncio.Task[Any]) -> None:
    with suppress(Other):
        await asyncio.gather(asyncio.shield(task), _fail())


async def _wait_for_a_failure(task: asyncio.Task[Any]) -> None:
    failing = asyncio.create_task(_fail())
    await asyncio.wait([task, failing], return_when=asyncio.FIRST_EXCEPTION)
    assert isinstance(failing.exception(), Other)


async def _group_with_one_that_fails(task: asyncio.Task[Any]) -> None:
    async def member() -> None:
        await asyncio.shield(task)

    with suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(member())
            group.create_task(_fail())


@pytest.mark.parametrize("with_session", [True, False])
@pytest.mark.parametrize(
    "wait",
    [_wait_a_while, _gather_with_one_that_fails, _wait_for_a_failure, _group_with_one_that_fails],
)
async def test_a_wait_that_something_else_ends_is_no_cycle(
    wait: Callable[[asyncio.Task[Any]], Awaitable[None]], with_session: bool
) -> None:
    tasks: list[asyncio.Task[str]] = []

    async def again() -> str:
        return await refs[0]

    @operator
    async def call() -> str:
        tasks.append(asyncio.create_task(again()))
        await wait(tasks[0])
        return "done"

    async with asyncio.timeout(60), Session(ScriptedEngine()) if with_session else nullcontext():
        refs = [call()]
        assert await refs[0] == "done"
        assert await tasks[0] == "done"


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_row_may_end_the_map_that_another_waits_for(ordered: bool) -> None:
    refs: list[Ref[Any]] = []

    async def row(number: int) -> Any:
        if number:
            return await refs[0]
        await asyncio.sleep(0.05)
        return "first"

    @operator
    async def over(session: Session) -> Any:
        async with session.map(row, range(3), ordered=ordered) as results:
            async for found in results:
                return found

    async with asyncio.timeout(60), Session(ScriptedEngine()) as session:
        refs.append(over(session))
        assert await refs[0] == "first"


async def test_rows_that_all_await_who_maps_them_unordered() -> None:
    refs: list[Ref[Any]] = []

    async def row(_: int) -> Any:
        return await refs[0]

    @operator
    async def over(session: Session) -> list[Any]:
        return [found async for found in session.map(row, range(3), ordered=False)]

    async with Session(ScriptedEngine()) as session:
        refs.append(over(session))
        await errors_of(refs[0])


async def test_a_member_that_only_seems_stuck_may_end_the_group() -> None:
    refs: dict[str, Ref[str]] = {}
    background: list[asyncio.Task[str]] = []

    async def awaits(name: str) -> str:
        return await refs[name]

    @operator
    async def y() -> str:
        background.append(asyncio.create_task(awaits("x")))  # which it does not await
        await asyncio.sleep(0.3)
        return "y"

    @operator
    async def z() -> str:
        return await refs["x"]

    @operator
    async def x() -> str:
        async def first() -> None:
            await refs["y"]
            group.cancel_scope.cancel()

        async def second() -> None:
            await asyncio.sleep(0.05)
            await refs["z"]

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            group.start_soon(second)
        return "x"

    refs |= {"x": x(), "y": y(), "z": z()}
    async with asyncio.timeout(60):
        running = asyncio.create_task(awaits("y"))
        await asyncio.sleep(0.02)
        assert await refs["x"] == "x"
        assert [await running, await background[0]] == ["y", "x"]


async def _first_of_two(work: Work) -> Any:
    tasks = [asyncio.ensure_future(work()) for _ in range(2)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return [await task for task in done]


async def _both_as_completed(work: Work) -> Any:
    return [await each for each in asyncio.as_completed([work(), work()])]


@pytest.mark.parametrize(
    "await_all", [_anyio_group, _task_group, _first_of_two, _both_as_completed]
)
async def test_groups_of_which_all_members_are_stuck(
    await_all: Callable[[Work], Awaitable[Any]],
) -> None:
    """Though the cycle closes only after they have begun to wait."""
    refs: dict[str, Ref[Any]] = {}

    async def fetch() -> Any:
        return await refs["lower"]

    @operator
    async def upper() -> Any:
        return await await_all(fetch)

    @operator
    async def lower() -> Any:
        await asyncio.sleep(0.02)
        return await gather(refs["upper"])

    refs |= {"upper": upper(), "lower": lower()}
    await errors_of(refs["upper"], refs["lower"])


async def test_many_waits_that_may_be_cycles() -> None:
    """Each is looked at as it begins: where each look took as long as there are waits, or all were
    looked at all the time, this would not end before the suite loses patience.
    """

    async def again() -> str:
        return await refs[0]

    @operator
    async def hub() -> str:
        tasks.extend(asyncio.create_task(again()) for _ in range(5000))
        await asyncio.sleep(0.5)
        return "done"

    tasks: list[asyncio.Task[str]] = []
    refs = [hub()]
    assert await refs[0] == "done"
    assert {await task for task in tasks} == {"done"}


async def test_what_is_known_of_tasks_goes_with_them() -> None:
    @operator
    async def worker(number: int) -> int:
        async def wait_for_itself() -> int:
            return await refs[number]

        tasks.append(asyncio.create_task(wait_for_itself()))
        await asyncio.sleep(0.01)
        return number

    async def row(number: int) -> Any:
        refs[number] = worker(number)
        return await gather(refs[number], llm(user(str(number))))

    before = {*AWAITED_BY}  # of other tests
    refs: dict[int, Ref[int]] = {}
    tasks: list[asyncio.Task[int]] = []
    for _ in range(5):
        async with Session(ScriptedEngine()) as session:
            assert [pair[0] async for pair in session.map(row, range(8))] == list(range(8))
        await asyncio.wait(tasks)
        tasks.clear()
        refs.clear()
    async with asyncio.timeout(60):
        while {*AWAITED_BY} - before:  # until they are looked at again
            await asyncio.sleep(0.01)
            gc.collect()


async def test_a_cycle_among_many_that_wait_is_found() -> None:
    """More waits than are looked at before one begins."""
    refs: dict[str, Ref[Any]] = {}

    @operator
    async def reads(name: str) -> Any:
        return await refs[name]

    @operator
    async def upper() -> Any:
        await asyncio.sleep(0.02)
        return await refs["lower"]

    @operator
    async def lower() -> Any:
        await asyncio.sleep(0.03)
        return await refs["upper"]

    async with Session(ScriptedEngine()):
        refs |= {"upper": upper(), "lower": lower()}
        readers = [reads(name) for name in ("upper", "lower") for _ in range(300)]
        await errors_of(*refs.values(), *readers)
