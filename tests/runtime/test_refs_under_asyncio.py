"""Refs wherever asyncio and anyio take a coroutine object."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
from collections.abc import AsyncIterator, Coroutine
from contextvars import ContextVar

import anyio
import pytest
from gate import Gate, cancel_when, ticks, until

from helium_agents import Ref, Session, gather, llm, operator, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import RefCancelled, RefMisuse

pytestmark = pytest.mark.usefixtures("quiet_loop")

bodies: ContextVar[list[str]] = ContextVar("bodies")


@operator
async def shout(word: str) -> str:
    bodies.get().append(word)
    return (await llm(user(word))).text.upper()


@operator
async def fail(word: str) -> str:
    bodies.get().append(word)
    raise KeyError(word)


@pytest.fixture
def ran() -> list[str]:
    return []


@pytest.fixture
async def engine() -> ScriptedEngine:
    return ScriptedEngine(Gate(is_open=True))


@pytest.fixture
async def session(engine: ScriptedEngine, ran: list[str]) -> AsyncIterator[Session]:
    bodies.set(ran)
    async with Session(engine) as session:
        yield session


@pytest.fixture(autouse=True)
def count_bodies(ran: list[str]) -> None:
    bodies.set(ran)


@pytest.fixture
async def draft(session: Session) -> Ref[str]:
    """A Ref made in a fixture, to be awaited in the test."""
    return shout("draft")


# --- fixtures that open sessions ------------------------------------------------------------------


async def test_session_of_an_async_generator_fixture(session: Session, ran: list[str]) -> None:
    bodies.set(ran)
    assert await shout("a") == "A"
    assert session.summary.num_computed == 1


async def test_ref_made_in_a_fixture(draft: Ref[str], ran: list[str]) -> None:
    bodies.set(ran)
    assert ran == []
    assert await draft == "DRAFT"
    assert ran == ["draft"]


# --- asyncio --------------------------------------------------------------------------------------


async def test_gather_of_different_and_of_the_same_refs(
    session: Session, engine: ScriptedEngine, ran: list[str]
) -> None:
    ref = shout("a")
    assert await asyncio.gather(ref, shout("b"), ref, llm(user("c"))) == [
        "A",
        "B",
        "A",
        await llm(user("c")),
    ]
    assert sorted(ran) == ["a", "b"]
    assert engine.num_requests == 3


async def test_our_gather_takes_the_same_ref_twice(session: Session, ran: list[str]) -> None:
    ref = shout("a")
    assert await gather(ref, ref, shout("b")) == ("A", "A", "B")
    assert ran == ["a", "b"]


async def test_gather_with_exceptions_as_results(session: Session) -> None:
    ref = fail("a")
    first, second, third = await asyncio.gather(ref, shout("b"), ref, return_exceptions=True)
    assert isinstance(first, KeyError) and first is third
    assert second == "B"


@pytest.mark.parametrize("make", [shout, lambda word: llm(user(word))], ids=["operator", "llm"])
async def test_two_tasks_of_the_same_ref(
    session: Session, engine: ScriptedEngine, make: Coroutine[None, None, object]
) -> None:
    ref = make("a")
    first, second = asyncio.create_task(ref), asyncio.create_task(ref)
    assert await first == await second == await ref
    assert engine.num_requests == 1


async def test_a_settled_ref_can_become_a_task(session: Session, ran: list[str]) -> None:
    ref = shout("a")
    assert await ref == "A"
    assert await asyncio.create_task(ref) == "A"
    assert await asyncio.ensure_future(ref) == "A"
    assert ran == ["a"]


async def test_a_task_is_named_after_the_operator(session: Session) -> None:
    task = asyncio.create_task(shout("a"))
    assert "shout" in repr(task)
    await task


async def test_a_task_cancelled_before_it_began(session: Session, ran: list[str]) -> None:
    task = asyncio.create_task(shout("a"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ran == []


async def test_the_other_task_of_a_ref_lives_when_one_never_began(
    session: Session, ran: list[str]
) -> None:
    ref = shout("a")
    first, second = asyncio.create_task(ref), asyncio.create_task(ref)
    first.cancel()
    assert await second == "A"
    assert first.cancelled()
    assert ran == ["a"]


async def test_task_group(session: Session, ran: list[str]) -> None:
    ref = shout("a")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(r) for r in (ref, ref, shout("b"), llm(user("c")))]
    assert [str(task.result()) for task in tasks] == ["A", "A", "B", "c"]
    assert sorted(ran) == ["a", "b"]


async def test_task_group_cancels_the_siblings_of_a_failure(ran: list[str]) -> None:
    engine = ScriptedEngine(Gate())
    async with Session(engine):
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(shout("a"))
                group.create_task(llm(user("b")))
                await until(lambda: engine.num_open == 2)
                group.create_task(fail("c"))
        assert caught.group_contains(KeyError, depth=1)
        assert engine.num_open == 0
        assert len(engine.aborted) == 2


async def test_wait_for_in_time(session: Session) -> None:
    assert await asyncio.wait_for(shout("a"), timeout=60) == "A"
    assert (await asyncio.wait_for(llm(user("b")), timeout=60)).text == "b"


async def test_wait_for_that_times_out_aborts_the_call() -> None:
    engine = ScriptedEngine(Gate())
    async with Session(engine):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(llm(user("a")), timeout=0)
        assert engine.num_requests == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(llm(user("a")), timeout=0.02)
        assert engine.num_open == 0
        assert len(engine.aborted) == engine.num_requests


async def test_shield_keeps_the_call_running(ran: list[str]) -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        inner = asyncio.create_task(shout("a"))
        outer = asyncio.ensure_future(asyncio.shield(inner))
        await until(lambda: engine.num_open == 1)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert engine.num_open == 1
        gate.open()
        assert await inner == "A"
        assert await asyncio.shield(shout("b")) == "B"
    assert ran == ["a", "b"]


async def test_as_completed(session: Session) -> None:
    refs = [shout("a"), shout("b"), llm(user("c"))]
    found = {str(await future) for future in asyncio.as_completed(refs)}
    assert found == {"A", "B", "c"}


async def test_wait_takes_tasks_of_refs(session: Session) -> None:
    ref = shout("a")
    done, pending = await asyncio.wait({asyncio.create_task(ref), asyncio.create_task(ref)})
    assert {task.result() for task in done} == {"A"}
    assert not pending


async def test_run_coroutine_threadsafe(session: Session) -> None:
    loop = asyncio.get_running_loop()
    ref = llm(user("a"))
    result = await asyncio.to_thread(
        lambda: asyncio.run_coroutine_threadsafe(ref, loop).result(timeout=60)
    )
    assert result.text == "a"


async def test_timeout_scope() -> None:
    engine = ScriptedEngine(Gate())
    async with Session(engine):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await shout("a")
        assert engine.num_open == 0


async def test_async_generators_yield_values_of_refs(session: Session, ran: list[str]) -> None:
    async def words() -> AsyncIterator[str]:
        for word in "abc":
            yield await shout(word)

    assert [word async for word in words()] == ["A", "B", "C"]
    async with contextlib.aclosing(words()) as some:
        assert await anext(some) == "A"
    assert ran == ["a", "b", "c", "a"]


async def test_refs_in_async_comprehensions_and_context_managers(session: Session) -> None:
    @contextlib.asynccontextmanager
    async def asked(word: str) -> AsyncIterator[str]:
        yield await shout(word)

    async with asked("a") as word:
        assert [word, *[await ref for ref in (shout("b"), shout("c"))]] == ["A", "B", "C"]


async def test_the_second_task_of_a_plain_ref_learns_of_the_firsts_cancellation() -> None:
    engine = ScriptedEngine(Gate())
    async with Session(engine):
        ref = shout("a")
        first, second = asyncio.create_task(ref), asyncio.create_task(ref)
        await until(lambda: engine.num_open == 1)
        first.cancel()
        with pytest.raises(RefCancelled, match="shout"):
            await second
        assert first.cancelled()
        assert engine.num_open == 0


# --- anyio ----------------------------------------------------------------------------------------


async def test_anyio_start_soon(session: Session, engine: ScriptedEngine, ran: list[str]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(shout, "a")
        group.start_soon(shout, "b", name="second")
    assert sorted(ran) == ["a", "b"]
    assert engine.num_requests == 2


async def test_anyio_task_group_cancelled() -> None:
    engine = ScriptedEngine(Gate())
    async with Session(engine):
        async with anyio.create_task_group() as group:
            group.start_soon(shout, "a")
            group.start_soon(shout, "b")
            await until(lambda: engine.num_open == 2)
            group.cancel_scope.cancel()
        await ticks()
        assert engine.num_open == 0
        assert len(engine.aborted) == 2


async def test_anyio_task_group_failure(session: Session) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(fail, "a")
    assert caught.group_contains(KeyError, depth=1)


@pytest.mark.parametrize("clean_up_ticks", [0, 30])
async def test_anyio_scopes_wait_for_the_clean_up(clean_up_ticks: int) -> None:
    gate = Gate(clean_up_ticks=clean_up_ticks)
    engine = ScriptedEngine(gate)
    async with Session(engine):
        with anyio.CancelScope() as scope:
            canceller = asyncio.create_task(cancel_when(scope, lambda: engine.num_open))
            await llm(user("a"))
        await canceller
        assert scope.cancelled_caught
        assert (engine.num_open, gate.num_cleaned_up) == (0, 1)


async def test_anyio_deadlines() -> None:
    engine = ScriptedEngine(Gate(clean_up_ticks=5))
    async with Session(engine):
        with anyio.move_on_after(0.02) as scope:
            await llm(user("a"))
        assert scope.cancelled_caught
        assert (engine.num_open, len(engine.aborted)) == (0, engine.num_requests)
        with pytest.raises(TimeoutError), anyio.fail_after(0.02):
            await shout("b")
        assert (engine.num_open, len(engine.aborted)) == (0, engine.num_requests)


async def test_anyio_scope_in_time(session: Session) -> None:
    with anyio.fail_after(60) as scope:
        assert await shout("a") == "A"
    assert not scope.cancelled_caught


async def test_a_scope_around_one_awaiter_leaves_the_other_alone() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        ref = llm(user("a"))
        task = asyncio.create_task(ref)
        await until(lambda: engine.num_open == 1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ref
        assert scope.cancelled_caught and engine.num_open == 1
        gate.open()
        assert (await task).text == "a"
        assert engine.aborted == []


async def test_a_copy_of_a_ref_is_the_ref_and_it_is_not_pickled(session: Session) -> None:
    ref = llm(user("q"))
    assert copy.copy(ref) is ref and copy.deepcopy({"answer": [ref]})["answer"][0] is ref
    with pytest.raises(RefMisuse, match="pickled before it was awaited"):
        pickle.dumps(ref)
    await ref
