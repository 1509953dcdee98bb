"""Engine deaths: one restart and one warning each, the same results, and poison found and named."""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from gate import Gate, ticks, until
from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents import ItemError, Session, gather, llm, operator, user
from helium_agents.engines.engine import ChatMessage, Delta, Request, Sampling
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.whole_engine import WholeEngine
from helium_agents.errors import (
    CallTimeout,
    EngineDied,
    EngineError,
    EngineStartError,
    PoisonRequest,
    TokenBudgetExceeded,
)
from helium_agents.runtime.fleet.fleet import DEATHS_BY_KILL
from helium_agents.runtime.fleet.supervised_engine import MOST_FRUITLESS_RESTARTS, SupervisedEngine
from helium_agents.telemetry.events import EngineLost, EngineStarted, Event

pytestmark = pytest.mark.usefixtures("quiet_loop")

Die = Callable[[Request], bool]


@contextmanager
def deaths() -> Iterator[list[str]]:
    """The warnings of deaths; any other is an error."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [str(each.message) for each in caught]
    assert all(re.match(r"engine '\w+' died \(death \d+ in", text) for text in found), found


def crash(request: Request) -> str:
    raise EngineDied("the scripted engine crashed: RuntimeError: out of luck")


def last(request: Request) -> str:
    return request.messages[-1].content


class Slow(ScriptedEngine):
    """An engine whose restarts (but not its first start) wait for a test."""

    def __init__(self, script: Any = None, **options: Any) -> None:
        super().__init__(script, **options)
        self.may_start = asyncio.Event()
        self.num_starting = 0

    async def start(self) -> None:
        if self.num_starts:
            self.num_starting += 1
            try:
                await self.may_start.wait()
            finally:
                self.num_starting -= 1
        await super().start()


@operator
async def study(row: int) -> list[str]:
    """Some shared calls, some of its own, and one that depends on them."""
    asked = [f"a fact about {row // 2}", f"the colour of {row}", f"the size of {row}"]
    views = await gather(*(llm(user(text)) for text in asked))
    best = await llm(user(f"the best of {views}"))
    return [*(view.text for view in views), best.text]


async def run(
    engine: ScriptedEngine, fn: Any, rows: Sequence[Any], **options: Any
) -> tuple[list[Any], Session]:
    map_options = {key: options.pop(key) for key in ("on_error",) if key in options}
    async with Session(engine, **options) as session:
        return [result async for result in session.map(fn, rows, **map_options)], session


async def undisturbed(fn: Any, rows: Sequence[Any]) -> tuple[list[Any], int]:
    engine = ScriptedEngine()
    results, _ = await run(engine, fn, rows)
    return results, engine.num_requests


async def wait_and_answer(request: Request) -> str:
    for _ in range(len(last(request)) % 7):
        await asyncio.sleep(0)
    return f"echo of {last(request)[-20:]}"


async def ask(row: str) -> str:
    return (await llm(user(row))).text


# --- right results -----------------------------------------------------------------------------


async def test_five_deaths_in_mid_run_change_nothing() -> None:
    rows = list(range(40))
    plain = ScriptedEngine(wait_and_answer)
    expected, _ = await run(plain, study, rows)
    num_answers = num_victims = 0

    async def script(request: Request) -> str:
        nonlocal num_answers, num_victims
        answer = await wait_and_answer(request)
        num_answers += 1
        if engine.num_deaths < 5 and num_answers >= 20 * engine.num_deaths + 10:
            num_deaths = engine.num_deaths
            engine.die()
            num_victims += engine.num_open * (engine.num_deaths - num_deaths)
        return answer

    engine = ScriptedEngine(script)
    events: list[Event] = []
    with deaths() as said:
        results, session = await run(engine, study, rows, observers=[events.append])
    assert results == expected
    assert (engine.num_deaths, len(said), engine.num_starts) == (5, 5, 6)
    assert engine.num_requests <= plain.num_requests + num_victims
    lost = [event for event in events if isinstance(event, EngineLost)]
    assert [event.num_deaths for event in lost] == [1, 2, 3, 4, 5]
    assert 0 < sum(event.num_open for event in lost) <= num_victims
    assert sum(isinstance(event, EngineStarted) for event in events) == 6
    assert session.summary.num_computed == plain.num_requests
    assert not engine.is_started


async def test_a_warning_says_what_died_why_and_what_happens() -> None:
    def script(request: Request) -> str:
        return "fine" if engine.num_deaths else crash(request)

    engine = ScriptedEngine(script)
    async with Session(engine):
        with deaths() as said:
            assert (await llm(user("q"))).text == "fine"
    assert said == [
        "engine 'scripted' died (death 1 in this session, open requests: 1): the scripted engine "
        "crashed: RuntimeError: out of luck. It is being started again, and what was open is "
        "asked again"
    ]


async def test_all_victims_share_one_restart() -> None:
    gate = Gate()
    engine = Slow(gate)
    with deaths() as said:
        async with Session(engine):
            calls = [llm(user(str(number))).start() for number in range(10)]
            await until(lambda: engine.num_open == 10)
            engine.die()
            await until(lambda: engine.num_starting)
            late = llm(user("late")).start()
            await ticks()
            assert (engine.num_requests, engine.num_starting) == (10, 1)
            gate.open()
            engine.may_start.set()
            assert [reply.text for reply in await gather(*calls)] == [str(n) for n in range(10)]
            assert (await late).text == "late"
    assert (len(said), engine.num_starts, engine.num_requests) == (1, 2, 21)


async def test_an_engine_that_died_idle_is_found_by_the_next_call() -> None:
    engine = ScriptedEngine(last)
    with deaths() as said:
        async with Session(engine):
            assert (await llm(user("a"))).text == "a"
            engine.die()
            await ticks()
            assert (engine.num_starts, said) == (1, [])
            assert (await llm(user("b"))).text == "b"
    assert (engine.num_starts, len(said)) == (2, 1)


async def test_who_gave_the_engine_started_keeps_it() -> None:
    engine = ScriptedEngine(last)
    await engine.start()
    engine.die()
    with deaths() as said:
        async with Session(engine):
            await llm(user("a"))
    assert engine.is_started and len(said) == 1
    await engine.close()


async def test_one_that_another_session_closed_is_started_again_and_closed() -> None:
    engine = ScriptedEngine(last)
    await engine.start()
    async with Session(engine):
        await llm(user("a"))
        await engine.close()
        assert (await llm(user("b"))).text == "b"
    assert (engine.num_starts, engine.is_started) == (2, False)


class Strict(ScriptedEngine):
    """An engine that renders nothing before it is started, as a real one."""

    async def render(self, messages: Sequence[ChatMessage], tools: Sequence[Any] = ()) -> list[int]:
        if not self.is_started:
            raise RuntimeError("there is no tokenizer")
        return await super().render(messages, tools)


async def test_one_that_was_closed_while_it_was_not_needed_renders_again() -> None:
    engine = Strict(last)
    async with Session(engine):
        await llm(user("a"))
        await engine.close()
        assert (await llm(user("b"))).text == "b"
    assert (engine.num_starts, engine.num_requests) == (2, 2)


async def test_what_fails_in_an_engine_that_was_not_closed_fails() -> None:
    def script(request: Request) -> str:
        raise ZeroDivisionError("a bug of the engine")

    engine = ScriptedEngine(script)
    async with Session(engine):
        with pytest.raises(ZeroDivisionError):
            await llm(user("a"))
    assert (engine.num_starts, engine.num_requests) == (1, 1)


async def test_under_two_names_it_dies_once() -> None:
    engine = ScriptedEngine(lambda request: last(request) if engine.num_deaths else crash(request))
    with deaths() as said:
        async with Session({"small": engine, "large": engine}):
            asked = (llm(user("q"), model=model) for model in ("small", "large"))
            assert [reply.text for reply in await gather(*asked)] == ["q", "q"]
    assert len(said) == 1


@settings(max_examples=60, deadline=None)
@given(
    kills=st.lists(st.integers(1, 60), max_size=5, unique=True),
    crashes=st.lists(st.integers(1, 60), max_size=1),
    num_rows=st.integers(1, 12),
)
def test_whenever_it_dies_the_results_are_the_same(
    kills: list[int], crashes: list[int], num_rows: int
) -> None:
    """Five kills and a crash in one's occupancy convict nobody."""

    async def main() -> None:
        rows = list(range(num_rows))
        expected, _ = await run(ScriptedEngine(wait_and_answer), study, rows)

        async def script(request: Request) -> str:
            number = engine.num_requests
            if number in crashes and engine.num_open > 1:
                crashes.remove(number)
                crash(request)
            answer = await wait_and_answer(request)
            if number in kills:
                kills.remove(number)
                engine.die()
            return answer

        engine = ScriptedEngine(script)
        with deaths() as said:
            results, _ = await run(engine, study, rows)
        assert results == expected
        assert len(said) == engine.num_starts - 1 <= engine.num_deaths  # it may die unnoticed

    asyncio.run(main())


# --- poison ------------------------------------------------------------------------------------


async def test_poison_is_isolated_and_named_and_the_others_finish() -> None:
    alone: list[int] = []

    async def script(request: Request) -> str:
        if "poison" in last(request):
            await ticks(3)
            alone.append(engine.num_open)
            crash(request)
        return await wait_and_answer(request)

    engine = ScriptedEngine(script)
    rows = [f"row {number}" for number in range(30)]
    rows[11] = "poison for all"
    with deaths() as said:
        results, session = await run(engine, ask, rows, on_error="collect")
    failed = [result for result in results if isinstance(result, ItemError)]
    assert [error.index for error in failed] == [11]
    cause = failed[0].__cause__
    assert isinstance(cause, PoisonRequest)
    assert str(cause) == (
        "llm(user('poison for all')) kills its engine: it was open at 3 deaths, alone at the "
        "last. the scripted engine crashed: RuntimeError: out of luck"
    )
    assert [r for r in results if r is not failed[0]] == [
        f"echo of {r}" for r in rows if "row" in r
    ]
    assert alone[:2] != [1, 1] and alone[2:] == [1]
    assert (engine.num_deaths, len(said), engine.num_starts) == (3, 3, 4)
    assert session.summary.num_failed_items == 1


async def test_several_poisons_are_told_apart() -> None:
    def script(request: Request) -> str:
        return crash(request) if "poison" in last(request) else last(request)

    engine = ScriptedEngine(script, latency_s=0.001)
    rows = ["poison" if number % 9 == 4 else str(number) for number in range(27)]
    rows = [f"{row} {number}" for number, row in enumerate(rows)]
    with deaths():
        results, _ = await run(engine, ask, rows, on_error="collect")
    for row, result in zip(rows, results, strict=True):
        if "poison" in row:
            assert isinstance(result, ItemError) and isinstance(result.__cause__, PoisonRequest)
            assert row in str(result.__cause__)
        else:
            assert result == row


async def test_without_collect_the_row_is_to_blame() -> None:
    engine = ScriptedEngine(lambda request: crash(request) if last(request) == "b" else "fine")
    with deaths(), pytest.raises(PoisonRequest) as raised:
        await run(engine, ask, ["a", "b", "c"])
    assert raised.value.__notes__ == ["in item 1: 'b'"]
    assert isinstance(raised.value.__cause__, EngineDied)
    assert not engine.is_started


async def test_a_suspect_runs_alone_and_others_wait_for_it() -> None:
    open_with_suspect: list[int] = []
    let_go = asyncio.Event()

    async def script(request: Request) -> str:
        if last(request) == "suspect" and engine.num_deaths < 2:
            crash(request)
        if last(request) == "suspect":
            await let_go.wait()
            open_with_suspect.append(engine.num_open)
        return last(request)

    engine = ScriptedEngine(script)
    with deaths() as said:
        async with Session(engine):
            suspect = llm(user("suspect")).start()
            await until(lambda: engine.num_deaths == 2 and engine.num_open == 1)
            others = [llm(user(str(number))).start() for number in range(5)]
            await ticks(50)
            assert (engine.num_open, engine.num_requests) == (1, 3)
            let_go.set()
            assert (await suspect).text == "suspect"
            await gather(*others)
    assert (open_with_suspect, len(said)) == ([1], 2)


async def test_kills_from_outside_convict_nobody_at_once() -> None:
    async def script(request: Request) -> str:
        if engine.num_deaths < DEATHS_BY_KILL - 1:
            engine.die()
            await asyncio.sleep(60)
        return last(request)

    engine = ScriptedEngine(script)
    with deaths() as said:
        results, _ = await run(engine, ask, ["only"])
    assert (results, len(said)) == (["only"], DEATHS_BY_KILL - 1)


async def test_one_that_gets_its_engine_killed_every_time_is_found_too() -> None:
    async def script(request: Request) -> str:
        if last(request) == "greedy for memory":
            engine.die()
            await asyncio.sleep(60)
        return last(request)

    engine = ScriptedEngine(script)
    with deaths() as said:
        results, _ = await run(engine, ask, ["a", "greedy for memory", "b"], on_error="collect")
    assert (results[0], results[2]) == ("a", "b")
    assert isinstance(results[1].__cause__, PoisonRequest)
    assert len(said) == DEATHS_BY_KILL


# --- the end -----------------------------------------------------------------------------------


async def test_an_engine_that_always_dies_ends_the_run() -> None:
    engine = ScriptedEngine(crash)
    rows = [str(number) for number in range(100)]
    with deaths() as said, pytest.raises(EngineDied) as raised:
        await run(engine, ask, rows, on_error="collect")
    assert str(raised.value) == (
        f"engine 'scripted' died {MOST_FRUITLESS_RESTARTS + 1} times in a row without answering a "
        "request, so it is not started again. The last time: the scripted engine crashed: "
        "RuntimeError: out of luck"
    )
    assert len(said) == MOST_FRUITLESS_RESTARTS == engine.num_starts - 1
    assert not engine.is_started


async def test_one_that_does_not_start_again_ends_the_run() -> None:
    class Once(ScriptedEngine):
        async def start(self) -> None:
            if self.num_starts:
                raise EngineStartError("the model is no longer there")
            await super().start()

    engine = Once(crash)
    with deaths() as said, pytest.raises(EngineStartError, match="no longer there"):
        await run(engine, ask, ["a", "b"], on_error="collect")
    assert len(said) == 1
    assert not engine.is_started


async def test_where_warnings_are_errors_one_call_fails_and_the_engine_is_restarted() -> None:
    def script(request: Request) -> str:
        return last(request) if engine.num_deaths else crash(request)

    engine = ScriptedEngine(script)
    async with Session(engine):
        results = await gather(*(llm(user(t)) for t in "abc"), return_exceptions=True)
    failed = [each for each in results if isinstance(each, Exception)]
    assert [type(each) for each in failed] == [RuntimeWarning]
    assert engine.num_starts == 2


async def test_an_engine_that_answers_nothing_is_not_asked_for_ever() -> None:
    class Mute(ScriptedEngine):
        async def complete(self, request: Request, on_delta: Any = None) -> Any:
            await super().complete(request, on_delta)

    engine = Mute(last)
    async with Session(engine):
        with pytest.raises(EngineError, match="'scripted' gave None in place of a Completion"):
            await llm(user("a"))
    assert engine.num_requests == 1


# --- leaving meanwhile ---------------------------------------------------------------------------


async def restarting(engine: Slow, *texts: str) -> list[asyncio.Future[Any]]:
    """Calls whose engine has died and is being restarted."""
    calls = [asyncio.ensure_future(llm(user(text))) for text in texts]
    await until(lambda: engine.num_open == len(texts))
    engine.die()
    await until(lambda: engine.num_starting)
    return calls


async def test_a_waiter_can_leave_during_a_restart() -> None:
    engine = Slow(gate := Gate())
    with deaths() as said:
        async with Session(engine):
            first, second = await restarting(engine, "a", "b")
            first.cancel()
            await until(first.done)
            gate.open()
            engine.may_start.set()
            assert (await second).text == "b"
    assert first.cancelled()
    assert (len(said), engine.num_requests) == (1, 3)


async def test_a_waiter_can_leave_while_a_suspect_runs_alone() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    await engine.start()
    line = SupervisedEngine(
        WholeEngine(engine),
        "m",
        "e",
        spawn=asyncio.create_task,
        on_up=lambda: None,
        emit=lambda _: None,
    )
    line.begin()
    assert line.is_up

    def ask(text: str, *, is_alone: bool = False) -> asyncio.Task[Any]:
        asked = Request(text, (ChatMessage("user", text),), [1], Sampling())
        return asyncio.create_task(line.complete(asked, is_alone=is_alone))

    first = ask("first")
    await ticks()
    suspect = ask("suspect", is_alone=True)
    await ticks()
    late = ask("late")
    await ticks()
    assert engine.num_open == 1
    suspect.cancel()
    await until(lambda: engine.num_open == 2)
    suspect = ask("suspect", is_alone=True)
    await ticks()
    gone, last_one = ask("gone"), ask("last")
    await ticks()
    gone.cancel()
    gate.open()
    await asyncio.gather(first, late, suspect, last_one)
    assert [asked.request_id for asked in engine.requests] == ["first", "late", "suspect", "last"]
    assert engine.num_open == 0


async def test_closing_the_session_during_a_restart_stops_the_start() -> None:
    engine = Slow(Gate())
    with deaths() as said:
        async with Session(engine):
            calls = await restarting(engine, "a", "b")
        await asyncio.gather(*calls, return_exceptions=True)
    assert (engine.num_starting, engine.is_started, len(said)) == (0, False, 1)


async def test_timeouts_go_on_counting() -> None:
    engine = Slow(Gate())
    with deaths():
        async with Session(engine):
            call = asyncio.ensure_future(llm(user("q"), timeout=0.05))
            await until(lambda: engine.num_open)
            engine.die()
            with pytest.raises(CallTimeout):
                await call
            assert engine.num_starting == 1


async def test_the_dead_give_back_their_tokens() -> None:
    def script(request: Request) -> str:
        if last(request) == "poison":
            crash(request)
        return last(request)

    engine = ScriptedEngine(script)
    with deaths():
        async with Session(engine, token_budget=60) as session:
            with pytest.raises(PoisonRequest):
                await llm(user("poison"), max_tokens=50)
            assert (await llm(user("a"), max_tokens=50)).text == "a"
            with pytest.raises(TokenBudgetExceeded, match=r"3 of the token budget of 60"):
                await llm(user("b"), max_tokens=60)
    assert session.summary.num_computed == 1


async def test_a_victim_keeps_its_tokens_for_the_retry() -> None:
    gate = Gate()
    engine = Slow(gate)
    with deaths():
        async with Session(engine, token_budget=60):
            first = llm(user("a"), max_tokens=40).start()
            await until(lambda: engine.num_open)
            second = llm(user("b"), max_tokens=40).start()
            await ticks()
            engine.die()
            engine.may_start.set()
            gate.open()
            assert (await first).text == "a"
            assert (await second).text == "b"


# --- streams -----------------------------------------------------------------------------------


class Speaker(ScriptedEngine):
    """Says its words one by one; dies in the middle of the first answer, or says others later."""

    def __init__(self, *answers: str, dies_after: int) -> None:
        super().__init__()
        self._answers = list(answers)
        self._dies_after = dies_after

    async def _reply(self, request: Request, index: int) -> str:
        return self._answers[min(self.num_deaths, len(self._answers) - 1)]

    async def complete(self, request: Request, on_delta: Any = None) -> Any:
        num_said = 0

        def listen(delta: Delta) -> None:
            nonlocal num_said
            if on_delta is not None:
                on_delta(delta)
            num_said += 1
            if num_said == self._dies_after and not self.num_deaths:
                self.die()

        return await super().complete(request, listen)


async def pieces_of(stream: AsyncIterator[str], found: list[str]) -> None:
    async for piece in stream:
        found.append(piece)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1, "seed": 3}])
@pytest.mark.parametrize("dies_after", [1, 3])
async def test_a_stream_goes_on_where_it_broke_off(
    sampling: dict[str, Any], dies_after: int
) -> None:
    engine, found = Speaker("one two three four", dies_after=dies_after), list[str]()
    with deaths() as said:
        async with Session(engine):
            ref = llm(user("q"), **sampling)
            await pieces_of(ref.stream(), found)
            assert (await ref).text == "one two three four"
    assert ("".join(found), len(said)) == ("one two three four", 1)


async def test_a_greedy_stream_must_not_contradict_itself() -> None:
    engine, found = Speaker("one two three", "one 2 three", dies_after=2), list[str]()
    with deaths():
        async with Session(engine):
            with pytest.raises(EngineError, match="different text than was delivered"):
                await pieces_of(llm(user("q")).stream(), found)
    assert "".join(found) == "one two"


async def test_an_unseeded_stream_that_has_begun_fails() -> None:
    engine, found = Speaker("one two three", dies_after=2), list[str]()
    with deaths() as said:
        async with Session(engine):
            with pytest.raises(EngineError, match=r"broke off after 7 .*give seed="):
                await pieces_of(llm(user("q"), temperature=1).stream(), found)
            assert (await llm(user("q"))).text == "one two three"
    assert ("".join(found), len(said)) == ("one two", 1)


async def test_an_unseeded_stream_that_has_not_begun_is_asked_again() -> None:
    gate, found = Gate(), list[str]()
    engine = ScriptedEngine(gate)
    with deaths():
        async with Session(engine):
            reading = asyncio.ensure_future(
                pieces_of(llm(user("q"), temperature=1).stream(), found)
            )
            await until(lambda: engine.num_open)
            engine.die()
            await ticks()
            gate.open()
            await reading
    assert found == ["q"]


# --- the scripted engine's deaths ----------------------------------------------------------------


async def complete(engine: ScriptedEngine, text: str = "q") -> Any:
    return await engine.complete(Request("r", (ChatMessage("user", text),), [1], Sampling()))


async def outcomes(*work: Awaitable[Any]) -> list[Any]:
    return [type(each).__name__ for each in await asyncio.gather(*work, return_exceptions=True)]


async def test_a_scripted_engine_dies_like_a_real_one() -> None:
    engine = ScriptedEngine(Gate())
    engine.die()
    assert engine.num_deaths == 0, "what was not started does not die"
    await engine.start()
    calls = [asyncio.ensure_future(complete(engine)) for _ in range(3)]
    await until(lambda: engine.num_open == 3)
    calls[0].cancel()
    engine.die()
    engine.die()
    assert await outcomes(*calls) == ["CancelledError", "EngineDied", "EngineDied"]
    assert (engine.num_deaths, engine.num_open, engine.is_started) == (1, 0, True)
    assert await outcomes(complete(engine)) == ["EngineDied"]
    assert engine.num_requests == 3
    await engine.start()
    assert engine.num_starts == 2
    await engine.close()


async def test_a_script_that_raises_a_death_kills_the_engine() -> None:
    async def script(request: Request) -> str:
        if last(request) == "bad":
            crash(request)
        await asyncio.sleep(60)
        return "never"

    engine = ScriptedEngine(script)
    await engine.start()
    innocent = asyncio.ensure_future(complete(engine))
    await until(lambda: engine.num_open)
    with pytest.raises(EngineDied, match="out of luck") as raised:
        await complete(engine, "bad")
    with pytest.raises(EngineDied, match="out of luck"):
        await innocent
    assert not raised.value.was_killed


async def test_a_scripts_own_timeout_is_no_death() -> None:
    def script(request: Request) -> str:
        raise TimeoutError("the script's own")

    engine = ScriptedEngine(script)
    await engine.start()
    with pytest.raises(TimeoutError, match="own"):
        await complete(engine)
