"""Retries and timeouts of operators: one meaning, pure or plain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from helium_agents import Session, gather, llm, operator, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import CallTimeout, OperatorDefinitionError, TransientEngineError

pytestmark = pytest.mark.usefixtures("quiet_loop")


class Flaky(Exception):
    pass


@pytest.mark.parametrize("pure", [True, False])
@pytest.mark.parametrize(
    ("retry_on", "num_runs"),
    [(None, 1), (Flaky, 3), ((KeyError, Flaky), 3), (KeyError, 1), (Exception, 3)],
)
async def test_retry_on_says_which_exceptions_are_worth_another_attempt(
    pure: bool, retry_on: Any, num_runs: int
) -> None:
    runs: list[int] = []

    async def body(number: int) -> int:
        runs.append(number)
        raise Flaky(number)

    options = {} if retry_on is None else {"retry_on": retry_on}
    call = operator(pure=pure, version="1", retries=2, **options)(body)
    async with Session(ScriptedEngine()):
        with pytest.raises(Flaky):
            await call(1)
    assert len(runs) == num_runs


@pytest.mark.parametrize("pure", [True, False])
async def test_an_attempt_that_succeeds_is_the_result(pure: bool) -> None:
    runs: list[int] = []

    async def body() -> int:
        runs.append(1)
        if len(runs) < 3:
            raise TransientEngineError("a moment")
        return len(runs)

    async with Session(ScriptedEngine()):
        assert await operator(pure=pure, version="1", retries=2)(body)() == 3


@pytest.mark.parametrize("pure", [True, False])
async def test_a_timeout_covers_all_attempts_together(pure: bool) -> None:
    runs: list[int] = []

    async def body() -> None:
        runs.append(1)
        await asyncio.sleep(0.02)
        raise Flaky("again")

    call = operator(pure=pure, version="1", retries=1000, retry_on=Flaky, timeout=0.1)(body)
    async with Session(ScriptedEngine()):
        with pytest.raises(CallTimeout, match=r"within its timeout of 0\.1 s"):
            await call()
    assert 1 < len(runs) < 50


@pytest.mark.parametrize("pure", [True, False])
async def test_an_inner_timeout_may_be_retried(pure: bool) -> None:
    slow = ScriptedEngine(lambda request: asyncio.sleep(0.02, "late"))

    async def body() -> str:
        runs.append(1)
        timeout = 0.001 if len(runs) == 1 else 30
        return (await llm(user("q"), timeout=timeout)).text

    runs: list[int] = []
    call = operator(pure=pure, version="1", retries=1, retry_on=TimeoutError)(body)
    async with Session(slow):
        assert await call() == "late"


async def test_a_cancellation_is_never_retried() -> None:
    runs: list[int] = []

    @operator(retries=5, retry_on=BaseException)
    async def body() -> None:
        runs.append(1)
        await asyncio.sleep(3600)

    async with Session(ScriptedEngine()):
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert runs == [1]


@pytest.mark.parametrize("retry_on", ["ValueError", ValueError("x"), int, (ValueError, 3), None])
def test_what_is_no_class_of_exceptions_is_refused(retry_on: Any) -> None:
    async def body() -> None: ...

    with pytest.raises(OperatorDefinitionError, match="retry_on="):
        operator(retry_on=retry_on)(body)


@pytest.mark.parametrize("first_retries", [0, 2])
async def test_equal_calls_have_the_most_retries_that_any_of_them_grants(
    first_retries: int,
) -> None:
    failures = iter([TransientEngineError("a moment")])

    def script(_: object) -> str:
        for error in failures:
            raise error
        return "answer"

    engine = ScriptedEngine(script)
    async with Session(engine):
        calls = [llm(user("q"), retries=n) for n in (first_retries, 2 - first_retries)]
        assert [reply.text for reply in await gather(*calls)] == ["answer"] * 2
    assert engine.num_requests == 2
