"""Errors belong to the Ref that asked, and are raised as the plain program would raise them."""

from __future__ import annotations

import asyncio
import enum
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from gate import Gate, ticks, until
from pydantic import BaseModel, field_validator

from helium_agents import ItemError, Ref, Session, gather, llm, operator, prompt, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import (
    EngineError,
    EngineStartError,
    InvalidReply,
    MemoError,
    PromptError,
    RequestError,
    SessionError,
    TransientEngineError,
)
from helium_agents.memo.memory import MemoryStore
from helium_agents.runtime import evaluator
from helium_agents.telemetry.events import CallSettled, Event, Planned

pytestmark = pytest.mark.usefixtures("quiet_loop")

log: list[Any] = []


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "FIRST_BACKOFF_S", 0.0)


class Failed(Exception):
    pass


@operator
async def plain(text: str) -> str:
    log.append(text)
    raise Failed(text)


@operator(pure=True, version="1")
async def pure(text: str) -> str:
    log.append(text)
    await asyncio.sleep(0)
    raise Failed(text)


def raising(error: Exception) -> Callable[[Request], str]:
    def script(request: Request) -> str:
        raise error

    return script


def saying(*answers: str | Exception) -> Callable[[Request], str]:
    """A script that gives these answers, one after another."""
    left = list(answers)

    def script(request: Request) -> str:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return script


# --- tracebacks -----------------------------------------------------------------------------------


async def outcomes(ref: Ref[Any], count: int) -> list[BaseException]:
    async def ask() -> None:
        await ref

    tasks = [asyncio.create_task(ask()) for _ in range(count)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, BaseException) for result in results)
    return results  # type: ignore[return-value]


@pytest.mark.parametrize("make", [plain, pure, lambda text: llm(user(text))])
async def test_every_waiter_gets_the_error_as_it_was_raised(
    make: Callable[[str], Ref[Any]],
) -> None:
    engine = ScriptedEngine(raising(Failed("a")))
    async with Session(engine):
        ref = make("a")
        for error in await outcomes(ref, 3):
            assert type(error) is Failed and error.args == ("a",)
        for _ in range(3):
            with pytest.raises(Failed, match="a") as caught:
                await ref
            names = [entry.name for entry in caught.traceback]
            assert names[-1] in ("plain", "pure", "script")
            assert len(names) < 30
            assert caught.value.__cause__ is None
        assert len(log) <= 1 and engine.num_requests <= 1


async def test_tracebacks_show_who_asked_and_who_failed() -> None:
    async with Session(ScriptedEngine()):

        @operator
        async def asks() -> str:
            return await pure("a")

        with pytest.raises(Failed) as caught:
            await asks()
        text = "".join(traceback.format_exception(caught.value))
        assert "await pure(" in text and "raise Failed(text)" in text


async def test_no_exception_group_is_made() -> None:
    async with Session(ScriptedEngine(raising(Failed("engine")))):
        failing = llm(user("a"))
        for use in (
            lambda: gather(pure("a"), pure("b")),
            lambda: llm(user(prompt("{x}{y}", x=failing, y=pure("c")))),
            lambda: pure.defer(pure("d")),
            lambda: plain.defer([failing, pure("e")]),
        ):
            with pytest.raises(Failed) as caught:
                await use()
            assert not isinstance(caught.value, BaseExceptionGroup)


async def test_the_leftmost_failing_input_is_raised() -> None:
    async def script(request: Request) -> str:
        text = request.messages[-1].content
        await ticks(30 if text == "slow" else 0)
        raise Failed(text)

    async with Session(ScriptedEngine(script)):
        with pytest.raises(Failed, match="slow"):
            await llm(user(prompt("{x}{y}", x=llm(user("slow")), y=llm(user("fast")))))


async def test_a_failing_input_ends_the_others() -> None:
    def script(request: Request) -> Any:
        return (
            raising(Failed("a"))(request) if request.messages[-1].content == "a" else held(request)
        )

    held = Gate(clean_up_ticks=3)
    engine = ScriptedEngine(script)
    async with Session(engine):
        with pytest.raises(Failed):
            await llm(user(prompt("{x}{y}", x=llm(user("a")), y=llm(user("b")))))
        assert engine.num_open == 0


async def test_an_error_can_be_handled_by_the_program() -> None:
    @operator
    async def fallback(text: str) -> str:
        try:
            return await pure(text)
        except Failed:
            return (await llm(user(text))).text

    engine = ScriptedEngine(lambda _: "fine")
    async with Session(engine):
        assert await gather(*(fallback("a") for _ in range(3))) == ("fine",) * 3
        assert engine.num_requests == 1


# --- not remembered -------------------------------------------------------------------------------


async def test_failures_are_not_remembered() -> None:
    store = MemoryStore()
    engine = ScriptedEngine(saying(Failed("first"), "second", "third"))
    async with Session(engine, memo=store):
        with pytest.raises(Failed):
            await llm(user("a"))
        assert (await llm(user("a"))).text == "second"
        assert (await llm(user("a"))).text == "second"
        with pytest.raises(Failed):
            await pure("b")
        with pytest.raises(Failed):
            await pure("b")
        assert log == ["b", "b"]
    async with Session(engine, memo=store):
        assert (await llm(user("a"))).text == "second"
        with pytest.raises(Failed):
            await pure("b")


async def test_equal_calls_fail_together() -> None:
    engine = ScriptedEngine(raising(Failed("a")))
    async with Session(engine):
        results = await gather(*(llm(user("a")) for _ in range(5)), return_exceptions=True)
        assert [str(result) for result in results] == ["a"] * 5
        assert engine.num_requests == 1


async def test_a_call_that_failed_does_not_harm_an_equal_later_one_with_it_as_input() -> None:
    engine = ScriptedEngine(saying(Failed("first"), "draft", "final"))
    async with Session(engine):
        failed = llm(user("a"))
        with pytest.raises(Failed):
            await failed
        again = llm(user("a"))
        results = await gather(
            llm(user(prompt("{x}", x=failed))),
            again,
            llm(user(prompt("use {x}", x=again))),
            return_exceptions=True,
        )
        assert isinstance(results[0], Failed)
        assert [reply.text for reply in results[1:]] == ["draft", "final"]  # type: ignore[union-attr]


async def test_the_shorter_call_is_asked_for_itself_where_the_longer_fails() -> None:
    def script(request: Request) -> str:
        if request.sampling.max_tokens > 2:
            raise RequestError("too long for the model")
        return "a b c"

    async with Session(ScriptedEngine(script)):
        long, short = await gather(
            llm(user("a"), max_tokens=8), llm(user("a"), max_tokens=2), return_exceptions=True
        )
        assert isinstance(long, RequestError)
        assert short.text == "a b"  # type: ignore[union-attr]


# --- retries --------------------------------------------------------------------------------------


async def test_transient_engine_errors_are_retried() -> None:
    engine = ScriptedEngine(saying(TransientEngineError("1"), TransientEngineError("2"), "fine"))
    async with Session(engine):
        assert (await llm(user("a"))).text == "fine"
        assert engine.num_requests == 3


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_retries_are_counted(retries: int) -> None:
    engine = ScriptedEngine(raising(TransientEngineError("busy")))
    async with Session(engine):
        with pytest.raises(TransientEngineError, match="busy"):
            await llm(user("a"), retries=retries)
        assert engine.num_requests == retries + 1


@pytest.mark.parametrize("error", [RequestError("bad"), EngineError("broken"), Failed("script")])
async def test_other_errors_are_not_retried(error: Exception) -> None:
    engine = ScriptedEngine(raising(error))
    async with Session(engine):
        with pytest.raises(type(error)):
            await llm(user("a"))
        assert engine.num_requests == 1


async def test_operators_retry_what_is_transient() -> None:
    def script(request: Request) -> str:
        log.append("request")
        if len(log) < 3:
            raise TransientEngineError("busy")
        return "fine"

    for pure_too in (False, True):
        log.clear()

        async def ask() -> str:
            return (await llm(user("a"), retries=0)).text

        async with Session(ScriptedEngine(script)):
            patient = operator(pure=pure_too, version="1", retries=2)(ask)
            assert await patient() == "fine"
            assert log == ["request"] * 3
            log.clear()
        async with Session(ScriptedEngine(script)):
            impatient = operator(pure=pure_too, version="2", retries=1)(ask)
            with pytest.raises(TransientEngineError):
                await impatient()


async def test_operators_do_not_retry_the_programs_own_errors() -> None:
    @operator(retries=3)
    async def fails() -> None:
        log.append(1)
        raise Failed

    async with Session(ScriptedEngine()):
        with pytest.raises(Failed):
            await fails()
    assert log == [1]


async def test_a_retried_operator_draws_anew() -> None:
    @operator(retries=5)
    async def until_valid() -> int:
        return (await llm(user("a"), temperature=1.0, schema=int, retries=0)).parsed

    async with Session(ScriptedEngine(saying("no", "neither", "7"))):
        assert await until_valid() == 7


async def test_cancelled_between_retries() -> None:
    engine = ScriptedEngine(raising(TransientEngineError("busy")))
    async with Session(engine):
        task = asyncio.create_task(llm(user("a"), retries=10**6))
        await until(lambda: engine.num_requests > 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        before = engine.num_requests
        await ticks()
        assert engine.num_requests == before


# --- schemas --------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Verdict(BaseModel):
    score: int


async def test_replies_that_fit() -> None:
    engine = ScriptedEngine(saying('{"score": 3}', '"red"', "[1, 2]"))
    async with Session(engine):
        assert (await llm(user("a"), schema=Verdict)).parsed == Verdict(score=3)
        assert (await llm(user("a"), schema=Colour)).parsed is Colour.RED
        assert (await llm(user("a"), schema=list[int])).all_parsed == ([1, 2],)
        assert all(request.json_schema for request in engine.requests)


async def test_a_greedy_reply_that_does_not_fit_is_not_asked_for_again() -> None:
    engine = ScriptedEngine(lambda _: "no number")
    async with Session(engine):
        with pytest.raises(InvalidReply, match=r"user\('a'\).*int"):
            await llm(user("a"), schema=int)
        assert engine.num_requests == 1


@pytest.mark.parametrize("options", [{}, {"seed": 7}], ids=["unseeded", "seeded"])
async def test_a_sampled_reply_that_does_not_fit_is_drawn_anew(options: dict[str, int]) -> None:
    engine = ScriptedEngine(saying("no", "neither", "7"))
    async with Session(engine):
        assert (await llm(user("a"), schema=int, temperature=1.0, **options)).parsed == 7
        assert engine.num_requests == 3
        seeds = [request.sampling.seed for request in engine.requests]
        assert len(set(seeds)) == (3 if options else 1)


async def test_a_sampled_reply_that_never_fits() -> None:
    engine = ScriptedEngine(lambda _: "no")
    async with Session(engine):
        with pytest.raises(InvalidReply):
            await llm(user("a"), schema=int, temperature=1.0, retries=4)
        assert engine.num_requests == 5


async def test_a_reply_that_was_cut_says_so() -> None:
    async with Session(ScriptedEngine(lambda _: '{"score": 3 }')):
        with pytest.raises(InvalidReply, match="cut at max_tokens=2"):
            await llm(user("a"), schema=Verdict, max_tokens=2)


async def test_a_schema_that_is_none() -> None:
    async with Session(ScriptedEngine()):
        with pytest.raises(PromptError, match="JSON schema"):
            llm(user("a"), schema=object())  # type: ignore[call-overload]


async def test_a_validator_that_breaks_fails_its_own_call_only() -> None:
    is_broken = False

    class Touchy(BaseModel):
        score: int

        @field_validator("score")
        @classmethod
        def check(cls, score: int) -> int:
            if is_broken:
                raise LookupError("broken validator")
            return score

    async with Session(ScriptedEngine(lambda _: '{"score": 3}')):
        assert (await llm(user("a"), schema=Touchy)).parsed.score == 3
        is_broken = True
        async with asyncio.timeout(60):
            with pytest.raises(LookupError, match="broken validator"):
                await llm(user("a"), schema=Touchy)  # remembered
            with pytest.raises(LookupError, match="broken validator"):
                await llm(user("b"), schema=Touchy)  # computed
        is_broken = False
        assert (await llm(user("b"), schema=Touchy)).parsed.score == 3


async def test_equal_schemas_with_different_validators_are_told_apart_by_their_refs() -> None:
    def model(least: int) -> type[BaseModel]:
        class Score(BaseModel):
            score: int

            @field_validator("score")
            @classmethod
            def check(cls, score: int) -> int:
                if score < least:
                    raise ValueError("too low")
                return score

        return Score

    engine = ScriptedEngine(lambda _: '{"score": 3}')
    async with Session(engine):
        low, high = await gather(
            llm(user("a"), schema=model(0)), llm(user("a"), schema=model(5)), return_exceptions=True
        )
        assert low.parsed.score == 3  # type: ignore[union-attr]
        assert isinstance(high, InvalidReply) and "too low" in str(high)
        high, low = await gather(
            llm(user("b"), schema=model(5)), llm(user("b"), schema=model(0)), return_exceptions=True
        )
        assert isinstance(high, InvalidReply) and "too low" in str(high)
        assert low.parsed.score == 3  # type: ignore[union-attr]


# --- rows -----------------------------------------------------------------------------------------


@operator
async def ask(row: int) -> str:
    return (await llm(user(f"row {row}"))).text


async def test_poisoned_rows_fail_alone() -> None:
    def script(request: Request) -> str:
        text = request.messages[-1].content
        if text in ("row 3", "row 5"):
            raise RequestError("too long for the model")
        return text

    async with Session(ScriptedEngine(script)) as session:
        results = [r async for r in session.map(ask, range(8), on_error="collect")]
        failed = [r for r in results if isinstance(r, ItemError)]
        assert [(r.index, r.row, type(r.__cause__)) for r in failed] == [
            (3, 3, RequestError),
            (5, 5, RequestError),
        ]
        assert [r for r in results if isinstance(r, str)] == [
            f"row {n}" for n in (0, 1, 2, 4, 6, 7)
        ]


async def test_an_engine_that_does_not_start_ends_the_run() -> None:
    class Broken(ScriptedEngine):
        async def start(self) -> None:
            await asyncio.sleep(0)
            self.num_starts += 1
            raise EngineStartError("no such model")

    engine = Broken()
    async with Session(engine) as session:
        results = await gather(ask(1), ask(2), pure_ask("a"), return_exceptions=True)
        assert {type(result) for result in results} == {EngineStartError}
        with pytest.raises(EngineStartError):
            async for _ in session.map(ask, range(10**9), on_error="collect"):
                pass
    assert engine.num_starts == 1


@operator(pure=True, version="1")
async def pure_ask(text: str) -> str:
    return (await llm(user(text))).text


# --- what the session is made of ------------------------------------------------------------------


class BrokenStore(MemoryStore):
    def __init__(self, *breaks: str) -> None:
        super().__init__()
        self.breaks = breaks

    def get(self, key: bytes) -> bytes | None:
        self._check("get")
        return super().get(key)

    def put(self, key: bytes, value: bytes, *, label: str, provenance: bytes = b"") -> None:
        self._check("put")
        super().put(key, value, label=label, provenance=provenance)

    def commit(self) -> Future[None]:
        future: Future[None] = Future()
        if "commit" in self.breaks:
            future.set_exception(MemoError("the disk is full"))
        else:
            future.set_result(None)
        return future

    def _check(self, step: str) -> None:
        if step in self.breaks:
            raise MemoError(f"the disk is full ({step})")


@pytest.mark.parametrize("step", ["get", "put"])
async def test_a_memo_that_breaks_fails_the_calls_that_use_it(step: str) -> None:
    async with asyncio.timeout(60):
        async with Session(ScriptedEngine(), memo=BrokenStore(step)) as session:
            draft = llm(user("a"))
            for ref in (draft, pure_ask("b"), llm(user(prompt("{x}", x=draft))), ask(1)):
                with pytest.raises(MemoError, match=step):
                    await ref
            with pytest.raises(MemoError):
                async for _ in session.map(ask, range(5), on_error="collect"):
                    pass


async def test_a_memo_that_cannot_commit() -> None:
    with pytest.raises(MemoError, match="disk is full"):
        async with Session(ScriptedEngine(), memo=BrokenStore("commit")) as session:
            with pytest.raises(MemoError, match="disk is full"):
                async for _ in session.map(ask, range(5), on_error="collect"):
                    pass
            await ask(7)


async def test_a_rule_that_breaks_fails_the_calls_it_was_to_plan() -> None:
    def rule(plan: Any, known: Any) -> Any:
        raise LookupError("broken rule")

    async with asyncio.timeout(60):
        async with Session(ScriptedEngine(), rules=[rule]):
            with pytest.raises(LookupError, match="broken rule"):
                await gather(llm(user("a")), llm(user("b")))


@pytest.mark.parametrize("kind", [Planned, CallSettled])
async def test_an_observer_that_breaks_hangs_nothing(
    kind: type[Event], request: pytest.FixtureRequest
) -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))

    def observe(event: Event) -> None:
        if isinstance(event, kind):
            raise LookupError("broken observer")

    async with asyncio.timeout(60):
        async with Session(ScriptedEngine(), observers=[observe]) as session:
            assert (await llm(user("a"))).text
            assert (await llm(user("a"))).text
            assert len([text async for text in session.map(ask, range(3))]) == 3
    assert {str(problem["exception"]) for problem in problems} == {"broken observer"}


async def test_an_engine_that_breaks_its_contract_fails_the_call() -> None:
    class NoChoices(ScriptedEngine):
        async def render(self, messages: Sequence[Any]) -> list[int]:
            raise LookupError("no template")

    async with Session(NoChoices()):
        with pytest.raises(LookupError, match="no template"):
            await llm(user("a"))


async def test_an_unknown_model_is_refused_where_it_is_named() -> None:
    async with Session(ScriptedEngine()):
        with pytest.raises(SessionError, match="model='x'"):
            llm(user("a"), model="x")
