"""Cancelling, timing out and giving up: the work goes on while anybody wants it, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from gate import Gate, cancel_when, ticks, until

from helium_agents import Ref, Reply, Session, llm, operator, prompt, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import CallTimeout, HeliumError, RefCancelled, SessionError

pytestmark = pytest.mark.usefixtures("quiet_loop")

log: list[str] = []
held: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()
    held[:] = [asyncio.Event()]


@operator(pure=True, version="1")
async def slow(name: str) -> str:
    """Pure: waits until the test lets it go on."""
    log.append(f"begin {name}")
    try:
        await held[0].wait()
        return name
    finally:
        await ticks(3)
        log.append(f"end {name}")


@operator(pure=True, version="1")
async def echo(text: str) -> str:
    return (await llm(user(text))).text


@operator
async def plain(text: str) -> str:
    log.append(f"begin {text}")
    try:
        return (await llm(user(text))).text
    finally:
        log.append(f"end {text}")


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with pytest.raises(asyncio.CancelledError):
            await task


# --- single flight --------------------------------------------------------------------------------


async def test_one_of_ten_equal_calls_is_cancelled() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine) as session:
        tasks = [asyncio.create_task(llm(user("a"))) for _ in range(10)]
        await until(lambda: engine.num_open)
        await cancelled(tasks.pop(3))
        gate.open()
        assert [(await task).text for task in tasks] == ["a"] * 9
        assert (engine.num_requests, engine.aborted) == (1, [])
        assert session.summary.num_computed == 1


async def test_the_asker_who_came_first_is_cancelled() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        first = asyncio.create_task(llm(user("a")))
        await until(lambda: engine.num_open)
        second = asyncio.create_task(llm(user("a")))
        await ticks()
        await cancelled(first)
        gate.open()
        assert (await second).text == "a"
        assert engine.num_requests == 1


async def test_all_of_ten_equal_calls_are_cancelled() -> None:
    gate = Gate(clean_up_ticks=5)
    engine = ScriptedEngine(gate)
    async with Session(engine):
        refs = [llm(user("a")) for _ in range(10)]
        tasks = [asyncio.create_task(ref) for ref in refs]
        await until(lambda: engine.num_open)
        await cancelled(*tasks)
        assert (engine.num_open, gate.num_cleaned_up) == (0, 1)
        assert engine.aborted == [engine.requests[0].request_id]
        gate.open()
        assert (await refs[7]).text == "a"
        assert engine.num_requests == 2


@pytest.mark.parametrize("num_ticks", range(12))
async def test_cancelled_at_any_moment(num_ticks: int) -> None:
    gate = Gate(clean_up_ticks=2)
    engine = ScriptedEngine(gate)
    async with Session(engine):
        ref, other = llm(user("a")), llm(user("a"))
        tasks = [asyncio.create_task(ref), asyncio.create_task(other)]
        await ticks(num_ticks)
        await cancelled(*tasks)
        assert engine.num_open == 0
        gate.open()
        assert (await ref).text == (await other).text == "a"
        assert engine.num_requests - len(engine.aborted) == 1


async def test_cancelled_while_an_input_is_computed() -> None:
    gate = Gate(clean_up_ticks=2)
    engine = ScriptedEngine(gate)
    async with Session(engine):
        draft = llm(user("draft"))
        final = llm(user(prompt("improve {x}", x=draft)))
        task = asyncio.create_task(final)
        await until(lambda: engine.num_open)
        await cancelled(task)
        assert (engine.num_open, gate.num_cleaned_up) == (0, 1)
        gate.open()
        assert (await final).text == "improve draft"
        assert [request.messages[-1].content for request in engine.requests] == [
            "draft",
            "draft",
            "improve draft",
        ]


async def test_an_input_that_somebody_else_wants_goes_on() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        draft = llm(user("draft"))
        first = asyncio.create_task(llm(user(prompt("improve {x}", x=draft))))
        second = asyncio.create_task(draft)
        await until(lambda: engine.num_open)
        await cancelled(first)
        assert engine.num_open == 1
        gate.open()
        assert (await second).text == "draft"
        assert engine.num_requests == 1


async def test_the_shorter_of_two_calls_is_cancelled() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        short = asyncio.create_task(llm(user("a b c"), max_tokens=1))
        long = asyncio.create_task(llm(user("a b c"), max_tokens=8))
        await until(lambda: engine.num_open)
        await cancelled(short)
        gate.open()
        assert (await long).text == "a b c"
        assert engine.num_requests == 1


async def test_the_longer_of_two_calls_is_cancelled() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        short = asyncio.create_task(llm(user("a b c"), max_tokens=1))
        long = asyncio.create_task(llm(user("a b c"), max_tokens=8))
        await until(lambda: engine.num_open)
        await cancelled(long)
        gate.open()
        assert (await short).text == "a"


# --- pure and plain operators ---------------------------------------------------------------------


async def test_an_abandoned_pure_call_can_be_asked_again() -> None:
    async with Session(ScriptedEngine()):
        ref = slow("a")
        task = asyncio.create_task(ref)
        await until(lambda: log)
        await cancelled(task)
        assert log == ["begin a", "end a"]  # the leaver has waited for the clean-up
        held[0].set()
        assert await ref == "a"
        assert log == ["begin a", "end a"] * 2


async def test_asked_again_while_the_abandoned_body_cleans_up() -> None:
    async with Session(ScriptedEngine()):
        ref = slow("a")
        task = asyncio.create_task(ref)
        await until(lambda: log)
        task.cancel()
        await ticks(2)
        assert log == ["begin a"]
        held[0].set()
        assert await ref == "a"
        await cancelled(task)


async def test_an_abandoned_pure_call_cancels_what_it_asked_for() -> None:
    gate = Gate(clean_up_ticks=2)
    engine = ScriptedEngine(gate)
    async with Session(engine):
        task = asyncio.create_task(echo("a"))
        await until(lambda: engine.num_open)
        await cancelled(task)
        assert (engine.num_open, gate.num_cleaned_up) == (0, 1)


async def test_what_an_abandoned_pure_call_asked_for_goes_on_for_others() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        pure = asyncio.create_task(echo("a"))
        direct = asyncio.create_task(llm(user("a")))
        await until(lambda: engine.num_open)
        await ticks()
        await cancelled(pure)
        gate.open()
        assert (await direct).text == "a"
        assert engine.num_requests == 1


async def test_a_pure_call_is_not_cancelled_with_its_first_asker() -> None:
    async with Session(ScriptedEngine()):
        ref = slow("a")
        first = asyncio.create_task(ref)
        await until(lambda: log)
        second = asyncio.create_task(ref)
        third = asyncio.create_task(slow("a"))
        await ticks()
        await cancelled(first)
        held[0].set()
        assert await second == await third == "a"
        assert log == ["begin a", "end a"]


async def test_cancelling_a_plain_call_runs_its_clean_up_first() -> None:
    engine = ScriptedEngine(Gate())
    async with Session(engine):
        task = asyncio.create_task(plain("a"))
        await until(lambda: engine.num_open)
        await cancelled(task)
        assert log == ["begin a", "end a"]
        assert engine.num_open == 0


async def test_a_second_awaiter_of_a_plain_call_is_cancelled() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        ref = plain("a")
        first, second = asyncio.create_task(ref), asyncio.create_task(ref)
        await until(lambda: engine.num_open)
        await cancelled(second)
        gate.open()
        assert await first == "a"
        assert log == ["begin a", "end a"]


# --- impatience -----------------------------------------------------------------------------------


async def test_cancelled_twice_still_waits_for_the_clean_up() -> None:
    gate = Gate(clean_up_ticks=10)
    engine = ScriptedEngine(gate)
    async with Session(engine):
        task = asyncio.create_task(llm(user("a")))
        await until(lambda: engine.num_open)
        task.cancel()
        await ticks(3)
        await cancelled(task)
        assert (engine.num_open, gate.num_cleaned_up) == (0, 1)


async def test_an_anyio_scope_cancels_a_chain_of_calls() -> None:
    gate = Gate(clean_up_ticks=10)
    engine = ScriptedEngine(gate)

    @operator
    async def outer() -> str:
        return await echo("a")

    async with Session(engine):
        with anyio.CancelScope() as scope:
            canceller = asyncio.create_task(cancel_when(scope, lambda: engine.num_open))
            await outer()
        await canceller
        assert scope.cancelled_caught
        assert (engine.num_open, gate.num_cleaned_up) == (0, 1)


# --- timeouts -------------------------------------------------------------------------------------


async def test_a_timeout_is_the_waiters_own() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        patient = asyncio.create_task(llm(user("a")))
        with pytest.raises(CallTimeout, match=r"user\('a'\).*0\.01 s") as caught:
            await llm(user("a"), timeout=0.01)
        assert isinstance(caught.value, TimeoutError)
        assert engine.num_open == 1
        gate.open()
        assert (await patient).text == "a"
        assert engine.num_requests == 1


async def test_the_last_waiters_timeout_aborts_the_call() -> None:
    gate = Gate(clean_up_ticks=5)
    engine = ScriptedEngine(gate)
    async with Session(engine):
        ref = llm(user("a"), timeout=0.01)
        with pytest.raises(CallTimeout):
            await ref
        assert (engine.num_open, gate.num_cleaned_up) == (0, 1)
        gate.open()
        assert (await ref).text == "a"


async def test_timeouts_count_from_admission() -> None:
    class SlowStart(ScriptedEngine):
        async def start(self) -> None:
            await asyncio.sleep(0.04)
            await super().start()

    async with Session(SlowStart()):
        assert (await llm(user("a"), timeout=0.02)).text


async def test_a_waiter_that_left_before_admission_leaves_no_trap() -> None:
    started = asyncio.Event()

    class HeldStart(ScriptedEngine):
        async def start(self) -> None:
            await started.wait()
            await super().start()

    async with Session(HeldStart(Gate(is_open=True))):
        gone = asyncio.create_task(llm(user("a"), timeout=5))
        stays = asyncio.create_task(llm(user("a"), timeout=5))
        await ticks()
        await cancelled(gone)
        started.set()
        assert (await stays).text == "a"


async def test_the_timeout_of_a_call_that_is_cut_from_a_longer_one() -> None:
    engine = ScriptedEngine(Gate())
    async with Session(engine):
        long = asyncio.create_task(llm(user("a b"), max_tokens=8))
        async with asyncio.timeout(60):
            with pytest.raises(CallTimeout):
                await llm(user("a b"), max_tokens=1, timeout=0.01)
        assert engine.num_open == 1
        await cancelled(long)


async def test_the_timeout_of_a_call_that_joins_one_in_flight_once_its_input_is_known() -> None:
    def script(request: Request) -> Any:
        return "b" if request.messages[-1].content == "a" else Gate()(request)

    engine = ScriptedEngine(script)
    async with Session(engine):
        running = asyncio.create_task(llm(user("b")))
        await until(lambda: engine.num_open)
        async with asyncio.timeout(60):
            with pytest.raises(CallTimeout):
                await llm(user(llm(user("a"))), timeout=0.01)
        assert engine.num_open == 1
        await cancelled(running)


async def test_timeout_of_a_pure_operator() -> None:
    @operator(pure=True, version="1", timeout=0.01)
    async def impatient(name: str) -> str:
        return await slow(name)

    async with Session(ScriptedEngine()):
        patient = asyncio.create_task(slow("a"))
        with pytest.raises(CallTimeout, match=r"impatient\(\.\.\.\)"):
            await impatient("a")
        held[0].set()
        assert await patient == "a"
        assert await impatient("a") == "a"
        assert log == ["begin a", "end a"]


async def test_timeout_of_a_plain_operator() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)

    @operator(timeout=0.01)
    async def impatient() -> str:
        return await plain("a")

    async with Session(engine):
        ref = impatient()
        with pytest.raises(CallTimeout, match=r"impatient\(\.\.\.\)"):
            await ref
        assert log == ["begin a", "end a"]
        assert engine.num_open == 0
        with pytest.raises(CallTimeout):
            await ref


async def test_a_timeout_error_of_the_body_is_not_a_call_timeout() -> None:
    @operator(timeout=5)
    async def raises() -> None:
        raise TimeoutError("mine")

    async with Session(ScriptedEngine()):
        with pytest.raises(TimeoutError, match="mine") as caught:
            await raises()
    assert not isinstance(caught.value, CallTimeout)


# --- start ----------------------------------------------------------------------------------------


async def test_start_demands_without_waiting() -> None:
    engine = ScriptedEngine(Gate(is_open=True))
    async with Session(engine):
        refs = [llm(user("a")), echo("b"), plain("c")]
        assert [ref.start() for ref in refs] == refs
        await until(lambda: engine.num_requests == 3)
        assert [str(await ref) for ref in refs] == ["a", "b", "c"]
        assert refs[0].start() is refs[0]
        assert engine.num_requests == 3


async def test_a_started_call_outlives_its_awaiters() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        refs = [llm(user("a")).start(), echo("b").start(), plain("c").start()]
        tasks = [asyncio.create_task(ref) for ref in refs]
        await until(lambda: engine.num_open == 3)
        await cancelled(*tasks)
        assert engine.num_open == 3
        gate.open()
        assert [str(await ref) for ref in refs] == ["a", "b", "c"]
        assert engine.num_requests == 3


async def test_a_started_call_whose_awaiter_leaves_at_once() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        ref = llm(user("a"))
        task = asyncio.create_task(ref)
        await asyncio.sleep(0)
        ref.start()
        await cancelled(task)
        await until(lambda: engine.num_open)
        gate.open()
        await ticks()
        assert engine.num_open == 0
        assert (await ref).text == "a"
        assert engine.num_requests == 1


@pytest.mark.parametrize(
    "make", [lambda: llm(user("a"), schema=int), lambda: plain("a")], ids=["llm", "plain"]
)
async def test_the_error_of_a_started_call_stays_with_its_ref(make: Callable[[], Ref[Any]]) -> None:
    def script(request: Request) -> str:
        raise KeyError("a")

    async with Session(ScriptedEngine(script)):
        ref = make().start()
        await ticks()
        with pytest.raises(KeyError):
            await ref


async def test_a_started_call_with_a_timeout_goes_on() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        ref = llm(user("a"), timeout=0.01).start()
        await until(lambda: engine.num_open)
        await asyncio.sleep(0.03)
        gate.open()
        assert (await ref).text == "a"
        assert engine.num_requests == 1
        assert (await llm(user("b"))).text == "b"  # the session is well


# --- closing the session --------------------------------------------------------------------------


@pytest.mark.parametrize("num_ticks", [*range(1, 12), 40])
async def test_closing_at_any_moment_ends_every_call(num_ticks: int) -> None:
    gate = Gate(clean_up_ticks=3)
    engine = ScriptedEngine(gate)
    async with asyncio.timeout(60):
        async with Session(engine):
            refs: list[Ref[Any]] = [
                llm(user("a")),
                llm(user("a")),
                echo("b"),
                plain("c"),
                slow("d"),
            ]
            refs.append(llm(user(refs[0]), timeout=5))
            refs.append(llm(user("a"), max_tokens=2))
            tasks = [asyncio.create_task(ref) for ref in refs]
            await ticks(num_ticks)
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, HeliumError) for result in results), results
    assert engine.num_open == 0
    assert engine.num_requests == len(engine.aborted)
    assert log == sorted(log, key=lambda entry: entry[-1]) or "end" in log[-1]
    assert sum(entry.startswith("begin") for entry in log) * 2 == len(log)


@pytest.mark.parametrize("num_ticks", [0, 1, 2, 4, 8, 40])
async def test_closing_ends_started_calls(num_ticks: int) -> None:
    engine = ScriptedEngine(Gate(clean_up_ticks=3))
    async with Session(engine):
        refs = [llm(user("a")), echo("b"), plain("c"), slow("d"), llm(user("e"), timeout=5)]
        for ref in refs:
            ref.start()
        await ticks(num_ticks)
    assert engine.num_open == 0
    assert sum(entry.startswith("begin") for entry in log) * 2 == len(log)
    for ref in refs:
        with pytest.raises((SessionError, RefCancelled)):
            await ref


async def test_closing_ends_streams() -> None:
    engine = ScriptedEngine(Gate())

    async def read(ref: Ref[Reply[None]]) -> list[str]:
        return [piece async for piece in ref.stream()]

    for num_ticks in range(10):
        async with asyncio.timeout(60):
            async with Session(engine):
                task = asyncio.create_task(read(llm(user("a"))))
                await ticks(num_ticks)
            with pytest.raises(HeliumError):
                await task
    assert engine.num_open == 0


async def test_a_body_that_asks_again_while_the_session_closes() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)

    @operator(pure=True, version="1")
    async def stubborn() -> str:
        try:
            return (await llm(user("a"))).text
        except asyncio.CancelledError:
            return (await llm(user("b"))).text

    async with asyncio.timeout(60):
        async with Session(engine):
            ref = stubborn().start()
            await until(lambda: engine.num_open)
        with pytest.raises(HeliumError):
            await ref
    assert engine.num_requests == 1


async def test_the_body_of_the_session_is_cancelled() -> None:
    gate = Gate(clean_up_ticks=3)
    engine = ScriptedEngine(gate)

    async def program() -> None:
        async with Session(engine):
            llm(user("b")).start()
            await llm(user("a"))

    task = asyncio.create_task(program())
    await until(lambda: engine.num_open == 2)
    task.cancel()
    await ticks(2)
    await cancelled(task)  # a second time, while it cleans up
    assert (engine.num_open, gate.num_cleaned_up) == (0, 2)
    assert not engine.is_started


async def test_a_session_in_a_cancelled_anyio_scope() -> None:
    class SlowClose(ScriptedEngine):
        async def close(self) -> None:
            await ticks(5)
            await super().close()

    gate = Gate(clean_up_ticks=5)
    engine = SlowClose(gate)
    with anyio.CancelScope() as scope:
        canceller = asyncio.create_task(cancel_when(scope, lambda: engine.num_open == 2))
        async with Session(engine):
            llm(user("b")).start()
            await plain("a")
    await canceller
    assert scope.cancelled_caught
    assert (engine.num_open, gate.num_cleaned_up) == (0, 2)
    assert log == ["begin a", "end a"]
    assert not engine.is_started
