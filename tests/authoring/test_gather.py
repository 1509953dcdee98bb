"""`gather`: fails as the leftmost failing argument does, and leaves nothing running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents import Ref, Session, gather, llm, operator, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import RefMisuse

pytestmark = pytest.mark.usefixtures("quiet_loop")

log: list[str] = []


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()


class Failed(Exception):
    pass


async def ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@operator
async def call(name: str, num_ticks: int = 0, fails: bool = False) -> str:
    try:
        await ticks(num_ticks)
        if fails:
            raise Failed(name)
        return name
    except asyncio.CancelledError:
        await ticks(3)
        log.append(f"{name} cleaned up")
        raise


@operator
async def forever(name: str) -> str:
    return await call(name, 10**9)


async def test_results_come_in_the_order_of_the_arguments(session: Session) -> None:
    assert await gather(call("a", 9), call("b", 1), call("c", 5)) == ("a", "b", "c")
    assert await gather() == ()
    assert await gather(call("a")) == ("a",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda ref: ([ref],), r"argument 0.*list.*gather\(\*refs\)"),
        (lambda ref: ((ref,),), r"argument 0.*tuple.*gather\(\*refs\)"),
        (lambda ref: ({ref},), r"argument 0.*set.*gather\(\*refs\)"),
        (lambda ref: ((each for each in [ref]),), r"generator.*gather\(\*refs\)"),
        (lambda ref: (ref, call), r"argument 1.*Operator.*awaited"),
        (lambda ref: (ref, 1), r"argument 1.*1.*int.*awaited"),
        (lambda ref: (ref, None), "argument 1.*None"),
    ],
)
@pytest.mark.parametrize("return_exceptions", [False, True])
async def test_what_cannot_be_awaited_is_refused_before_anything_runs(
    session: Session, make: Any, message: str, return_exceptions: bool
) -> None:
    ref = call("a")
    with pytest.raises(RefMisuse, match=message):
        await gather(*make(ref), return_exceptions=return_exceptions)
    await ticks(3)
    assert log == []
    ref.close()


async def test_coroutines_beside_a_wrong_argument_are_closed(session: Session) -> None:
    async def coroutine() -> None: ...

    with pytest.raises(RefMisuse):
        await gather(coroutine(), 1, coroutine())  # type: ignore[call-overload]


async def test_return_exceptions_is_true_or_false(session: Session) -> None:
    with pytest.raises(RefMisuse, match="return_exceptions='no'"):
        await gather(call("a"), return_exceptions="no")  # type: ignore[call-overload]


async def test_it_takes_whatever_can_be_awaited(session: Session) -> None:
    async def coroutine() -> str:
        return "coroutine"

    class Custom:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return "custom"

    future = asyncio.get_running_loop().create_future()
    future.set_result("future")
    task = asyncio.create_task(coroutine())
    ref = call("ref")
    assert await gather(ref, coroutine(), future, task, Custom(), gather(ref), ref) == (
        "ref",
        "coroutine",
        "future",
        "coroutine",
        "custom",
        ("ref",),
        "ref",
    )


async def test_they_run_at_the_same_time(session: Session, engine: ScriptedEngine) -> None:
    await gather(*(llm(user(str(number))) for number in range(20)))
    assert engine.most_open == 20


async def test_nothing_runs_before_it_is_awaited(session: Session) -> None:
    together = gather(call("a", fails=True))
    await ticks(5)
    with pytest.raises(Failed):
        await together


async def test_the_leftmost_failure_is_raised_whichever_came_first(session: Session) -> None:
    with pytest.raises(Failed, match="first"):
        await gather(call("ok"), call("first", 20, True), call("second", 0, True))


async def test_the_rest_is_cancelled_and_cleaned_up(session: Session) -> None:
    with pytest.raises(Failed, match="b") as caught:
        await gather(call("a"), call("b", 3, True), forever("c"), forever("d"))
    assert sorted(log) == ["c cleaned up", "d cleaned up"]
    assert not isinstance(caught.value, BaseExceptionGroup)


async def test_model_calls_are_aborted_by_a_failure() -> None:
    async def script(_: object) -> str:
        await asyncio.Event().wait()
        return ""

    engine = ScriptedEngine(script)
    async with Session(engine):
        with pytest.raises(Failed):
            await gather(call("a", 40, True), llm(user("a")), llm(user("b")))
        assert engine.num_requests == len(engine.aborted) == 2
        assert engine.num_open == 0


async def test_a_failing_argument_that_is_given_twice(session: Session) -> None:
    ref = call("a", 2, True)
    with pytest.raises(Failed, match="a"):
        await gather(ref, ref)


async def test_exceptions_as_results(session: Session) -> None:
    results = await gather(
        call("a", 5, True), call("b", 3), call("c", fails=True), return_exceptions=True
    )
    assert [str(result) for result in results] == ["a", "b", "c"]
    assert [type(result) for result in results] == [Failed, str, Failed]
    assert log == []


@pytest.mark.parametrize("return_exceptions", [False, True])
async def test_cancelled_it_cancels_everything(session: Session, return_exceptions: bool) -> None:
    refs = [forever("a"), forever("b"), call("c")]
    task = asyncio.create_task(gather(*refs, return_exceptions=return_exceptions))
    await ticks(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(log) == ["a cleaned up", "b cleaned up"]
    assert task.cancelled()


async def test_cancelled_before_it_began(session: Session, engine: ScriptedEngine) -> None:
    task = asyncio.create_task(gather(llm(user("a")), llm(user("b"))))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.num_requests == 0


async def test_nested(session: Session) -> None:
    with pytest.raises(Failed, match="inner"):
        await gather(
            call("a"),
            gather(call("b"), call("inner", 5, True), forever("c")),
            gather(forever("d"), forever("e")),
            call("later", 0, True),
        )
    assert sorted(log) == ["c cleaned up", "d cleaned up", "e cleaned up"]


async def test_a_failure_keeps_its_traceback(session: Session) -> None:
    with pytest.raises(Failed) as caught:
        await gather(call("a"), call("b", 1, True))
    assert caught.traceback[-1].name == "call"


async def test_coroutines_that_never_began_are_closed(session: Session) -> None:
    async def never() -> None: ...

    failed = call("a", fails=True)
    with pytest.raises(Failed):
        await failed
    with pytest.raises(Failed):  # and no "was never awaited"
        await gather(failed, never(), never())


Plan = list[tuple[int, bool]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=6), st.booleans())
def test_outcome_and_running_time_follow_the_rule(plan: Plan, as_coroutines: bool) -> None:
    async def program() -> None:
        before = asyncio.all_tasks()

        def make(name: str, num_ticks: int, fails: bool) -> Awaitable[str]:
            ref: Ref[str] = call(name, num_ticks, fails)
            return awaited(ref) if as_coroutines else ref

        async def awaited(ref: Ref[str]) -> str:
            return await ref

        made = [make(str(i), num_ticks, fails) for i, (num_ticks, fails) in enumerate(plan)]
        first = next((str(i) for i, (_, fails) in enumerate(plan) if fails), None)
        if first is None:
            assert await gather(*made) == tuple(map(str, range(len(plan))))
        else:
            with pytest.raises(Failed) as caught:
                await gather(*made)
            assert str(caught.value) == first
        assert asyncio.all_tasks() == before

    async def main() -> None:
        async with Session(ScriptedEngine()):
            await program()

    asyncio.run(main())
