"""Guesses whose bodies do their worst: nothing hangs, and the program does not notice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import pytest
from gate import ticks, until

from helium_agents import Budget, Session, llm, operator, system, user
from helium_agents.engines.engine import Completion, Delta, OnDelta, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import EngineDied, SessionError
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.runtime.speculation import ending

pytestmark = pytest.mark.usefixtures("quiet_loop")

LAVISH = Budget(max_extra_tokens=1e9, least_probability=0.0)


def says(answer: Any) -> Callable[..., Any]:
    return lambda *_: answer


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_WAITS_S", (0.01, 0.01, 0.01))


# --- bodies that go on when they are cancelled ----------------------------------------------------


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("where", ["the body", "a tool"])
async def test_a_guess_that_is_deaf_is_left_and_the_session_closes(where: str) -> None:
    deaf_since: list[str] = []

    async def poll(text: str) -> str:
        deaf_since.append(text)
        while text == "no":  # which never changes: the true answer would have ended it
            try:
                await asyncio.sleep(0.001)
            except BaseException:
                continue
        return text

    tool = operator(pure=True, version="1")(poll)

    @operator(pure=True, version="1")
    async def steps(question: str) -> str:
        first = await llm(user(question), predict=says("no"))
        return await (tool(first.text) if where == "a tool" else poll(first.text))

    may_answer = asyncio.Event()

    async def script(request: Request) -> str:
        await may_answer.wait()
        return "yes"

    async with Session(ScriptedEngine(script), speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps, "q1"))
        await until(lambda: deaf_since)
        may_answer.set()
        assert await answer == "yes"
        with pytest.warns(RuntimeWarning, match="goes on when it is cancelled"):
            await asyncio.wait_for(session.close(), 10)
    assert deaf_since == ["no", "yes"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.usefixtures("_impatient")
async def test_a_guess_that_was_deaf_once_is_cancelled_again() -> None:
    ends: list[str] = []

    @operator(pure=True, version="1")
    async def steps() -> str:
        first = await llm(user("q"), predict=says("no"))
        try:
            return (await llm(user(f"then {first.text}"))).text
        except BaseException:
            ends.append("caught")
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("ended")
        return ""

    may_answer = asyncio.Event()

    async def script(request: Request) -> str:
        if request.messages[-1].content != "then yes":
            await may_answer.wait()
        return "yes"

    engine = ScriptedEngine(script)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps))
        await until(lambda: engine.num_requests == 2)
        may_answer.set()
        assert await answer == "yes"
    assert ends == ["caught", "ended"]


# --- who reads an answer as it comes --------------------------------------------------------------


async def test_who_reads_an_answer_as_it_comes_does_not_wait_for_all_of_it() -> None:
    pieces: list[str] = []

    @operator(pure=True, version="1")
    async def steps() -> str:
        first = await llm(user("q"), predict=says("yes"))
        async for piece in llm(user(f"then {first.text}")).stream():
            pieces.append(piece)
        return "".join(pieces)

    class Slow(ScriptedEngine):
        """Goes on with an answer when it is told to."""

        async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
            if request.messages[-1].content == "q":
                await may_answer.wait()
                return await super().complete(request, on_delta)
            if on_delta is not None:
                on_delta(Delta(0, "one"))
            await may_end.wait()
            return await super().complete(request, None)

    may_answer, may_end = asyncio.Event(), asyncio.Event()
    engine = Slow(lambda request: "yes" if request.messages[-1].content == "q" else "one two")
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps))
        await ticks(100)
        may_answer.set()
        await until(lambda: pieces == ["one"])
        may_end.set()
        assert await answer == "one two"


# --- functions that guess -------------------------------------------------------------------------


async def test_what_a_predictor_asks_is_not_asked_of_the_session() -> None:
    def predict(_: Any) -> str:
        llm(user("of the predictor")).start()
        return "yes"

    @operator(pure=True, version="1")
    async def steps() -> str:
        return (await llm(user("q"), predict=predict)).text

    problems: list[Any] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: problems.append(context["exception"]))
    engine = ScriptedEngine()
    async with Session(engine, speculate=LAVISH) as session:
        await session.run(steps)
    loop.set_exception_handler(before)
    assert engine.num_requests == 1
    assert [type(problem) for problem in problems] == [SessionError]


async def test_rows_with_system_messages_of_their_own_tell_of_each_other() -> None:
    @operator(pure=True, version="1")
    async def judged(document: str) -> str:
        verdict = await llm(system(document), user("good?"), schema=Literal["bad", "good"])
        return (await llm(user(f"{verdict.parsed} {document}"))).text

    async def script(request: Request) -> str:
        if request.json_schema is None:
            return "fine"
        await may_judge.wait()
        return '"good"'

    may_judge = asyncio.Event()
    engine = ScriptedEngine(script)
    async with Session(engine, speculate=LAVISH) as session:
        may_judge.set()
        for number in range(70):
            await session.run(judged, f"document {number}")
        may_judge.clear()
        answer = asyncio.create_task(session.run(judged, "new"))
        await until(lambda: engine.num_requests > 2 * 70 + 1)
        assert engine.requests[2 * 70 + 1].messages[-1].content == "good new"
        may_judge.set()
        assert await answer == "fine"


class Costly(ScriptedEngine):
    """An answer is there when its prompt is computed: no other can be, meanwhile."""

    cost = StepCost(0.01, 0.01, 0.0, 1.0, 0.0)


async def test_where_tools_win_by_guesses_these_go_on_though_prompts_win_nothing() -> None:
    runs: list[int] = []

    @operator(pure=True, version="1")
    async def tool(number: int) -> str:
        runs.append(number)
        return f"<{number}>"

    @operator(pure=True, version="1")
    async def steps(number: int) -> str:
        first = await llm(user(f"q {number}"), predict=says("yes"), max_tokens=1)
        return (await llm(user(await tool(number) + first.text))).text

    async def script(request: Request) -> str:
        if request.messages[-1].content.startswith("q"):
            await ticks(100)
        return "yes"

    budget = Budget(max_extra_tokens=1e9, trials=3)
    async with Session(Costly(script), speculate=budget) as session:
        for number in range(12):
            assert await session.run(steps, number) == "yes"
        assert session.summary.num_early == 12, "each tool, while the model was asked"


# --- engines that die of guesses ------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:engine .* died:RuntimeWarning")
async def test_an_engine_that_dies_of_guesses_gets_none_any_more() -> None:
    @operator(pure=True, version="1", predict=lambda number: f"poison {number}")
    async def look(number: int) -> str:
        await until(lambda: engine.num_deaths >= min(number, 2))
        await ticks(50)
        return f"page {number}"

    @operator(pure=True, version="1")
    async def steps(number: int) -> str:
        return (await llm(user(await look(number)))).text

    def script(request: Request) -> str:
        question = request.messages[-1].content
        if "poison" in question:
            raise EngineDied("out of memory")
        return f"re {question}"

    engine = ScriptedEngine(script)
    async with Session(engine, speculate=LAVISH) as session:
        await llm(user("first"))  # which starts the engine
        for number in range(1, 9):
            assert await session.run(steps, number) == f"re page {number}"
    assert engine.num_deaths == 2


async def test_a_call_that_found_its_tool_under_way_ends_when_that_has_cleaned_up() -> None:
    order: list[str] = []

    @operator(pure=True, version="1")
    async def tool(text: str) -> str:
        try:
            order.append(f"began {text}")
            await may_end.wait()
        finally:
            await ticks(20)
            order.append(f"cleaned up {text}")
        return text

    @operator(pure=True, version="1")
    async def steps(question: str) -> str:
        first = await llm(user(question), predict=says(f"re {question}"))
        return await tool(first.text)

    async def script(request: Request) -> str:
        await may_answer.wait()
        return f"re {request.messages[-1].content}"

    may_answer, may_end = asyncio.Event(), asyncio.Event()
    may_end.set()
    async with Session(ScriptedEngine(script), speculate=LAVISH) as session:
        may_answer.set()
        await session.run(steps, "a")  # then it is known that the tool makes no calls
        may_answer.clear(), may_end.clear(), order.clear()
        answer = asyncio.create_task(session.run(steps, "b"))
        await until(lambda: order)
        may_answer.set()
        await until(lambda: "early" in session.waiting() or "tool" in session.waiting())
        await ticks(50)
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        order.append("cancelled")
    assert order == ["began re b", "cleaned up re b", "cancelled"]
