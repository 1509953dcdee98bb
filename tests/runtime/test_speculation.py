"""Speculation: what a body will ask is there when it asks it; nothing else is seen of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from gate import ticks, until

from helium_agents import (
    Budget,
    Session,
    ToolCall,
    agent_loop,
    gather,
    llm,
    operator,
    prompt,
    run_tools,
    user,
)
from helium_agents.engines.engine import Capacity, Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.errors import EngineDied, SessionError
from helium_agents.memo.memory import MemoryStore
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.telemetry.events import Speculated
from helium_agents.trace import read_trace

pytestmark = pytest.mark.usefixtures("quiet_loop")

LAVISH = Budget(max_extra_tokens=1e9, least_probability=0.0)


class Doors:
    """A script that answers each question by its words, when the test opens it.

    Questions that are not closed are answered at once.
    """

    def __init__(self, *closed: str, **answers: str) -> None:
        self._doors = {question: asyncio.Event() for question in closed}
        self._answers = answers

    def open(self, question: str) -> None:
        self._doors[question].set()

    async def __call__(self, request: Request) -> str:
        question = request.messages[-1].content
        if question in self._doors:
            await self._doors[question].wait()
        return self._answers.get(question, f"re {question}")


def asked(engine: ScriptedEngine) -> list[str]:
    return [request.messages[-1].content for request in engine.requests]


def says(answer: Any) -> Callable[..., Any]:
    return lambda *_: answer


@operator(pure=True)
async def two_steps(question: str, guess: str) -> str:
    first = await llm(user(question), predict=says(guess))
    return (await llm(user(f"then {first.text}"))).text


# --- guesses that are right and wrong -------------------------------------------------------------


async def test_what_follows_a_right_guess_is_there_when_it_is_asked() -> None:
    doors = Doors("q", q="yes")
    engine, events = ScriptedEngine(doors), []
    async with Session(engine, speculate=LAVISH, observers=[events.append]) as session:
        answer = asyncio.create_task(session.run(two_steps, "q", "yes"))
        await until(lambda: len(engine.requests) == 2)
        await ticks()
        assert asked(engine) == ["q", "then yes"]
        assert session.summary.num_computed == 0, "nothing is reported before it is asked"
        assert "then yes" not in session.waiting()
        doors.open("q")
        assert await answer == "re then yes"
        assert engine.num_requests == 2
        assert session.summary.num_computed == 2
    (event,) = [event for event in events if isinstance(event, Speculated)]
    assert (event.source, event.is_used, event.wasted_tokens) == ("predict", True, 0)


async def test_a_wrong_guess_is_aborted_and_its_answers_are_kept_nowhere() -> None:
    doors, store = Doors("q", "then no", q="yes"), MemoryStore()
    engine, events = ScriptedEngine(doors), []
    options: Any = {"memo": store, "run_id": "r", "observers": [events.append]}
    async with Session(engine, speculate=LAVISH, **options) as session:
        answer = asyncio.create_task(session.run(two_steps, "q", "no"))
        await until(lambda: len(engine.requests) == 2)
        doors.open("q")
        assert await answer == "re then yes"
        assert asked(engine) == ["q", "then no", "then yes"]
        assert len(engine.aborted) == 1
    (event,) = [event for event in events if isinstance(event, Speculated)]
    assert not event.is_used and event.wasted_tokens > 0
    plain = MemoryStore()
    async with Session(
        ScriptedEngine(Doors(q="yes")), speculate="off", memo=plain, run_id="r"
    ) as session:
        await session.run(two_steps, "q", "no")
    assert kept_in(store) == kept_in(plain)


def kept_in(store: MemoryStore) -> dict[bytes, tuple[str, bytes, bytes]]:
    """What is kept, apart from when."""
    return {key: (label, *rest) for key, (label, _, _, *rest) in store._kept.items()}


async def test_an_answer_that_is_under_way_early_is_waited_for_and_asked_once() -> None:
    doors = Doors("q", "then yes", q="yes")
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(two_steps, "q", "yes"))
        await until(lambda: len(engine.requests) == 2)
        doors.open("q")
        await ticks(50)
        assert "asked before it was" in session.waiting()
        doors.open("then yes")
        assert await answer == "re then yes"
        assert engine.num_requests == 2 and engine.aborted == []


async def test_guesses_on_top_of_guesses() -> None:
    @operator(pure=True)
    async def chain() -> str:
        text = "0"
        for _ in range(4):
            text = (await llm(user(text), predict=lambda said: f"re {said[-1].content}")).text
        return text

    doors = Doors("0")
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(chain))
        await until(lambda: len(engine.requests) == 4)
        assert asked(engine) == ["0", "re 0", "re re 0", "re re re 0"]
        doors.open("0")
        assert await answer == "re re re re 0"
        assert engine.num_requests == 4


async def test_a_long_loop_is_guessed_to_its_end() -> None:
    @operator(pure=True)
    async def loop() -> str:
        for number in range(40):
            await llm(user(f"turn {number}"), predict=lambda said: f"re {said[-1].content}")
        return "done"

    events: list[Any] = []
    async with Session(
        ScriptedEngine(Doors()), speculate=LAVISH, observers=[events.append]
    ) as session:
        await session.run(loop)
    assert sum(isinstance(event, Speculated) and event.is_used for event in events) == 39


async def test_several_guesses_take_both_branches() -> None:
    @operator(pure=True)
    async def branch() -> str:
        kind = await llm(
            user("kind"),
            schema=Literal["red", "blue"],
            predict=says([("red", 0.6), ("blue", 0.4)]),
        )
        return (await llm(user(kind.parsed))).text

    doors = Doors("kind", kind='"blue"')
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(branch))
        await until(lambda: len(engine.requests) == 3)
        assert asked(engine) == ["kind", "red", "blue"]
        doors.open("kind")
        assert await answer == "re blue"
        assert engine.num_requests == 3


async def test_a_smaller_engine_guesses() -> None:
    doors = Doors("q", q="yes")
    small = ScriptedEngine(Doors(q="yes"), name="small", identity="small")

    @operator(pure=True)
    async def steps() -> str:
        first = await llm(user("q"), predict="small")
        return (await llm(user(f"then {first.text}"))).text

    engines = {"big": (big := ScriptedEngine(doors)), "small": small}
    async with Session(engines, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps))
        await until(lambda: len(big.requests) == 2)
        assert asked(small) == ["q"]
        doors.open("q")
        assert await answer == "re then yes"
        assert big.num_requests == 2 and session.summary.num_computed == 2


async def test_no_engine_is_started_for_a_guess() -> None:
    @operator(pure=True)
    async def steps() -> str:
        first = await llm(user("q"), model="one", predict=says("no"))
        model = "one" if first.text == "yes" else "other"
        return (await llm(user(f"then {first.text}"), model=model)).text

    doors = Doors("q", q="yes")
    engines = {name: ScriptedEngine(doors, name=name, identity=name) for name in ("one", "other")}
    async with Session(engines, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps))
        await ticks(200)
        doors.open("q")
        assert await answer == "re then yes"
        assert not engines["other"].is_started and engines["other"].requests == []


async def test_a_guess_of_which_the_smaller_engine_is_not_sure_is_not_tried() -> None:
    doors = Doors("q", q="yes")

    @operator(pure=True)
    async def steps() -> str:
        first = await llm(user("q"), predict=says([("yes", 0.1)]))
        return (await llm(user(f"then {first.text}"))).text

    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=Budget(max_extra_tokens=1e9)) as session:
        answer = asyncio.create_task(session.run(steps))
        await ticks(200)
        assert asked(engine) == ["q"]
        doors.open("q")
        assert await answer == "re then yes"


async def test_tokens_for_wrong_guesses_are_limited() -> None:
    doors = Doors("q", q="yes")
    engine = ScriptedEngine(doors)
    budget = Budget(max_extra_tokens=0.0)
    async with Session(engine, speculate=budget) as session:
        answer = asyncio.create_task(session.run(two_steps, "q", "no"))
        await ticks(200)
        assert asked(engine) == ["q"]
        doors.open("q")
        assert await answer == "re then yes"


async def test_a_trace_and_the_summary_tell_what_was_early_and_what_was_for_nothing(
    tmp_path: Path,
) -> None:
    doors = Doors("q1", "q2", q1="yes", q2="yes")
    options: Any = {"speculate": LAVISH, "trace": tmp_path / "run.trace"}
    engine = ScriptedEngine(doors)
    async with Session(engine, **options) as session:
        for question, guess in (("q1", "yes"), ("q2", "no")):
            answer = asyncio.create_task(session.run(two_steps, question, guess))
            await until(lambda guess=guess: f"then {guess}" in asked(engine))
            await ticks(50)
            doors.open(question)
            assert await answer == "re then yes"
        summary = session.summary
        assert (summary.num_early, summary.num_given_up) == (1, 1)
        assert summary.as_dict()["wasted_tokens"] == summary.wasted_tokens > 0
    told = read_trace(tmp_path / "run.trace").speculated
    assert sorted(each["is_used"] for each in told) == [False, True]


# --- operators and tools --------------------------------------------------------------------------


class Slow:
    """Pure work that ends when the test says so, and is counted."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.may_end = asyncio.Event()

    def __helium_version__(self) -> bytes:
        return b"1"

    async def work(self, what: str) -> str:
        self.started.append(what)
        await self.may_end.wait()
        return f"<{what}>"


def tool_of(slow: Slow) -> Any:
    @operator(pure=True, version="1")
    async def tool(what: str) -> str:
        return await slow.work(what)

    return tool


async def test_a_pure_tool_runs_while_the_model_has_not_said_so_yet() -> None:
    slow, doors = Slow(), Doors("q", q="go")
    tool = tool_of(slow)

    @operator(pure=True, version="1")
    async def steps() -> str:
        first = await llm(user("q"), predict=says("go"))
        return (await llm(user(await tool(first.text)))).text

    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps))
        await until(lambda: slow.started)
        slow.may_end.set()
        await until(lambda: len(engine.requests) == 2)
        doors.open("q")
        assert await answer == "re <go>"
        assert slow.started == ["go"] and engine.num_requests == 2
        assert session.summary.operators_by_source == {"body": 2}


async def test_a_tool_that_runs_early_is_waited_for_once_its_kind_is_known() -> None:
    slow, doors = Slow(), Doors("q1", "q2", q1="one", q2="two")
    tool = tool_of(slow)

    @operator(pure=True, version="1")
    async def steps(question: str, guess: str) -> str:
        first = await llm(user(question), predict=says(guess))
        return await tool(first.text)

    async with Session(ScriptedEngine(doors), speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps, "q1", "one"))
        await until(lambda: slow.started)
        slow.may_end.set()
        await ticks()
        doors.open("q1")
        assert await answer == "<one>"
        slow.may_end.clear()
        answer = asyncio.create_task(session.run(steps, "q2", "two"))
        await until(lambda: len(slow.started) == 2)
        doors.open("q2")
        await ticks(50)
        slow.may_end.set()
        assert await answer == "<two>"
        assert slow.started == ["one", "two"]


async def test_an_operator_that_calls_others_runs_for_itself_and_what_it_calls_is_there() -> None:
    doors = Doors("q", q="go")
    runs: list[str] = []

    @operator(pure=True, version="1")
    async def inner(text: str) -> str:
        runs.append(text)
        await ticks(3)
        first, second = await gather(llm(user(f"a {text}")), llm(user(f"b {text}")))
        return first.text + second.text

    @operator(pure=True, version="1")
    async def steps() -> str:
        first = await llm(user("q"), predict=says("go"))
        return await inner(first.text)

    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps))
        await until(lambda: len(engine.requests) == 3)
        await ticks(50)
        assert len(runs) == 2, "as one that calls none, and then for itself"
        doors.open("q")
        assert await answer == "re a gore b go"
        assert engine.num_requests == 3
        assert session.summary.calls_by_source == {"engine": 3}
        assert session.summary.operators_by_source == {"body": 2}


async def test_a_result_that_is_guessed_of_an_operator() -> None:
    slow = Slow()

    @operator(pure=True, version="1", predict=lambda what: f"<{what}>")
    async def tool(what: str) -> str:
        return await slow.work(what)

    @operator(pure=True, version="1")
    async def steps() -> str:
        return (await llm(user(await tool("x")))).text

    engine = ScriptedEngine()
    async with Session(engine, speculate=LAVISH) as session:
        await llm(user("first"))  # which starts the engine
        answer = asyncio.create_task(session.run(steps))
        await until(lambda: engine.num_requests == 2)
        assert asked(engine) == ["first", "<x>"]
        slow.may_end.set()
        await answer
        assert engine.num_requests == 2 and slow.started == ["x"]


async def test_tools_that_are_no_pure_operators_run_as_often_as_without() -> None:
    runs: list[str] = []

    def plain(what: str) -> str:
        runs.append(what)
        return what

    @operator(pure=True, version="1")
    async def steps() -> str:
        reply = await llm(user("q"), tools=[plain], predict=says(ToolCall("plain", {"what": "x"})))
        messages = await run_tools(reply, [plain])
        return (await llm(user("q"), *messages)).text

    doors = Doors("q")

    async def script(request: Request) -> Any:
        await doors(request)
        return ScriptedReply(tool_calls=[ToolCall("plain", {"what": "x"})])

    async with Session(ScriptedEngine(script), speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps))
        await ticks(200)
        assert runs == []
        doors.open("q")
        await answer
        assert runs == ["x"]


# --- where a shadow ends --------------------------------------------------------------------------


async def test_a_guess_of_an_operator_that_draws_or_calls_plain_ones_ends_without_a_trace() -> None:
    runs: list[str] = []

    @operator
    async def plain() -> None:
        runs.append("plain")

    @operator(pure=True, version="1")
    async def steps() -> str:
        first = await llm(user("q"), predict=says("no"))
        if first.text == "no":
            await gather(plain(), llm(user("draw"), temperature=1))
        return (await llm(user(f"then {first.text}"))).text

    doors = Doors("q", q="yes")
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps))
        await ticks(200)
        doors.open("q")
        assert await answer == "re then yes"
        assert asked(engine) == ["q", "then yes"] and runs == []


async def test_what_is_outside_a_body_is_not_demanded_by_a_guess() -> None:
    outside: dict[str, Any] = {}
    runs: list[Any] = []

    @operator(pure=True, version="1")
    async def steps(how: str) -> str:
        first = await llm(user(f"q {how}"), predict=says("no"))
        if first.text == "no":
            match how:
                case "await":
                    await outside["ref"]
                case "start":
                    outside["ref"].start()
                case "stream":
                    [piece async for piece in outside["ref"].stream()]
                case "map":
                    [row async for row in outside["session"].map(runs.append, [1])]
        return (await llm(user(f"then {first.text}"))).text

    for how in ("await", "start", "stream", "map"):
        doors = Doors(f"q {how}", **{f"q {how}": "yes"})
        engine = ScriptedEngine(doors)
        async with Session(engine, speculate=LAVISH) as session:
            outside |= {"ref": llm(user("outside")), "session": session}
            answer = asyncio.create_task(session.run(steps, how))
            await ticks(200)
            doors.open(f"q {how}")
            assert await answer == "re then yes"
            assert asked(engine) == [f"q {how}", "then yes"] and runs == []


async def test_a_wrong_guess_may_make_a_body_loop_or_fail_or_exit() -> None:
    @operator(pure=True, version="1")
    async def steps(how: str) -> str:
        first = await llm(user("q"), predict=says("no"))
        while first.text == "no" and how == "loop":
            first = await llm(user("q"))
        if first.text == "no":
            raise SystemExit(1) if how == "exit" else ValueError("no such thing")
        return first.text

    for how in ("loop", "exit", "fail"):
        doors = Doors("q", q="yes")
        async with Session(ScriptedEngine(doors), speculate=LAVISH) as session:
            answer = asyncio.create_task(session.run(steps, how))
            await ticks(2000)
            doors.open("q")
            assert await answer == "yes"


async def test_a_task_that_a_guess_has_left_behind_does_nothing_more() -> None:
    seen: list[str] = []
    held = asyncio.Event()

    @operator(pure=True, version="1")
    async def steps() -> str:
        first = await llm(user("q"), predict=says("no"))

        async def later() -> None:
            await held.wait()
            await llm(user("later"))
            seen.append(first.text)

        if first.text == "no":
            tasks.append(asyncio.create_task(later()))
        return first.text

    tasks: list[Any] = []
    doors = Doors("q", q="yes")
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps))
        await until(lambda: tasks)
        doors.open("q")
        await answer
        held.set()
        await asyncio.wait(tasks)
        assert tasks[0].cancelled() and seen == [] and asked(engine) == ["q"]


async def test_the_clean_up_of_a_guess_that_ends_is_not_interrupted() -> None:
    cleaned: list[str] = []

    @operator
    async def plain() -> None:
        cleaned.append("never")

    @operator(pure=True, version="1")
    async def steps(how: str) -> str:
        try:
            first = await llm(user("q"), predict=says("no"))
            if first.text == "no" and how == "by itself":
                await plain()
            return (await llm(user(f"then {first.text}"))).text
        finally:
            await ticks(20)
            cleaned.append(how)

    for how in ("by itself", "from outside"):
        doors = Doors("q", "then no", q="yes")
        cleaned.clear()
        async with Session(ScriptedEngine(doors), speculate=LAVISH) as session:
            answer = asyncio.create_task(session.run(steps, how))
            await ticks(60)
            doors.open("q")
            assert await answer == "re then yes"
        assert cleaned == [how] * 2, "once in the guess, and once in the body itself"


@pytest.mark.parametrize("is_in_tasks", [False, True])
async def test_a_body_that_goes_on_whatever_ends_it_is_left_and_guessed_no_more(
    is_in_tasks: bool,
) -> None:
    async def insist(text: str) -> str:
        while True:
            try:
                return (await llm(user(text))).text
            except:  # noqa: E722 - as people write it
                pass

    @operator(pure=True, version="1")
    async def steps(question: str) -> str:
        first = await llm(user(question), predict=says("no"))
        text = f"then {first.text}"
        if is_in_tasks:
            return "".join(await asyncio.gather(insist(text), insist(f"{text} too")))
        return await insist(text)

    doors = Doors("q1", "q2", "then no", "then no too", q1="yes", q2="yes")
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        with pytest.warns(RuntimeWarning, match="let asyncio.CancelledError through"):
            answer = asyncio.create_task(session.run(steps, "q1"))
            await until(lambda: "then no" in asked(engine))
            doors.open("q1")
            assert (await answer).startswith("re then yes")
            await ticks(100)
        assert engine.num_open == 0
        answer = asyncio.create_task(session.run(steps, "q2"))
        await ticks(100)
        assert asked(engine).count("then no") == 1
        doors.open("q2")
        assert (await answer).startswith("re then yes")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_body_that_changes_its_arguments_is_not_guessed() -> None:
    @operator(pure=True, version="1")
    async def steps(texts: list[str]) -> str:
        texts.append("more")
        first = await llm(user(" ".join(texts)), predict=says("no"))
        return (await llm(user(f"then {first.text}"))).text

    doors = Doors("a more")
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps, ["a"]))
        await ticks(200)
        doors.open("a more")
        assert await answer == "re then re a more"
        assert asked(engine) == ["a more", "then re a more"]


async def test_refs_in_prompts_and_arguments_are_answered_early_too() -> None:
    slow = Slow()
    slow.may_end.set()
    tool = tool_of(slow)

    @operator(pure=True, version="1")
    async def steps() -> str:
        first = await llm(user("q"), predict=says("yes"))
        seen = llm(user(prompt("see {a}", a=llm(user(f"look {first.text}")))))
        return "".join([piece async for piece in llm(user(await tool.defer(seen))).stream()])

    doors = Doors("q", q="yes", **{"look yes": "L", "see L": "S"})
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps))
        await until(lambda: len(engine.requests) == 3)
        await ticks(100)
        doors.open("q")
        await answer
        assert asked(engine)[:3] == ["q", "look yes", "see L"]


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancelled", "failed", "closed", "timeout"])
async def test_no_guess_outlives_the_call_that_it_is_made_for(how: str) -> None:
    doors = Doors("q", "then no", "forever")

    @operator(pure=True, version="1", timeout=0.01 if how == "timeout" else None)
    async def steps() -> str:
        async def other() -> None:
            await ticks(100)
            if how == "failed":
                raise ValueError("failed")
            await llm(user("forever"))

        async def main() -> str:
            first = await llm(user("q"), predict=says("no"))
            return (await llm(user(f"then {first.text}"))).text

        await asyncio.gather(main(), other())
        return ""

    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(steps))
        await until(lambda: "then no" in asked(engine))
        if how == "cancelled":
            answer.cancel()
        if how != "closed":
            with pytest.raises((ValueError, TimeoutError, asyncio.CancelledError)):
                await answer
            await ticks(50)
            assert engine.num_open == (1 if how == "failed" else 0), session.waiting()
    assert engine.num_open == 0
    if how == "closed":
        with pytest.raises(SessionError):
            await answer


async def test_a_call_that_was_cancelled_is_not_seen_to_fail_by_a_guess() -> None:
    @operator(pure=True, version="1")
    async def other() -> str:
        return (await llm(user("b"))).text

    @operator(pure=True, version="1")
    async def careful() -> str:
        await llm(user("q"), predict=says("yes"))
        try:
            return (await llm(user("b"))).text
        except Exception:
            return (await llm(user("failed"))).text

    doors = Doors("q", "b", q="yes")
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        asks_b = asyncio.create_task(session.run(other))
        await until(lambda: asked(engine) == ["b"])
        answer = asyncio.create_task(session.run(careful))
        await until(lambda: asked(engine) == ["b", "q"])
        await ticks()
        asks_b.cancel()
        await ticks(50)
        assert asked(engine) == ["b", "q"]
        doors.open("q")
        doors.open("b")
        assert await answer == "re b"


async def test_an_engine_that_dies_is_not_asked_a_guess_again() -> None:
    doors = Doors("q", "then no", q="yes")
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(two_steps, "q", "no"))
        await until(lambda: len(engine.requests) == 2)
        with pytest.warns(RuntimeWarning, match="died"):
            engine.die(EngineDied("out of memory"))
            await until(lambda: len(engine.requests) == 3)
        doors.open("q")
        assert await answer == "re then yes"
        assert asked(engine) == ["q", "then no", "q", "then yes"]


async def test_an_early_answer_that_was_asked_for_outlives_its_engine() -> None:
    doors = Doors("q", "then yes", q="yes")
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(two_steps, "q", "yes"))
        await until(lambda: len(engine.requests) == 2)
        doors.open("q")
        await ticks(50)
        with pytest.warns(RuntimeWarning, match="died"):
            engine.die(EngineDied("out of memory"))
            await until(lambda: len(engine.requests) == 3)
        doors.open("then yes")
        assert await answer == "re then yes"


async def test_who_leaves_an_answer_that_he_found_under_way_leaves_nothing_behind() -> None:
    doors = Doors("q", "then yes", q="yes")
    engine = ScriptedEngine(doors)
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(two_steps, "q", "yes"))
        await until(lambda: len(engine.requests) == 2)
        doors.open("q")
        await until(lambda: "asked before it was" in session.waiting())
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        await ticks()
        assert engine.num_open == 0


# --- where nothing is guessed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"speculate": "off"},
        {"speculate": "auto"},
        {"speculate": LAVISH, "memo_mode": "off"},
        {"speculate": LAVISH, "share": False},
        {"speculate": LAVISH, "rules": ()},
        {"speculate": LAVISH, "token_budget": 10**6},
    ],
    ids=str,
)
async def test_nothing_is_guessed(options: Any) -> None:
    doors = Doors("q", q="yes")
    engine = ScriptedEngine(doors)
    async with Session(engine, **options) as session:
        answer = asyncio.create_task(session.run(two_steps, "q", "yes"))
        await ticks(200)
        assert asked(engine) == ["q"]
        doors.open("q")
        assert await answer == "re then yes"


async def test_what_a_predictor_raises_is_told_to_the_event_loop_and_changes_nothing() -> None:
    problems: list[Any] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: problems.append(context))

    @operator(pure=True, version="1")
    async def steps(predict: str) -> str:
        return (await llm(user(predict), predict=wrongs[predict])).text

    def raising(error: BaseException) -> Callable[..., Any]:
        def predict(_: Any) -> Any:
            raise error

        return predict

    wrongs = {
        "raises": raising(ValueError()),
        "is cancelled": raising(asyncio.CancelledError()),
        "exits": raising(SystemExit(1)),
        "tells no text": says(7),
    }
    async with Session(ScriptedEngine(), speculate=LAVISH) as session:
        for wrong in wrongs:
            assert await session.run(steps, wrong)
    assert len(problems) == len(wrongs)
    assert all("nothing is guessed of llm" in problem["message"] for problem in problems)
    loop.set_exception_handler(before)


# --- what is learned ------------------------------------------------------------------------------


class Verdicts(ScriptedEngine):
    """Says "good" of whatever it is to judge, once the test lets it; its steps take seconds."""

    cost: StepCost | None = StepCost(10.0, 0.02, 0.0, 0.0, 0.0)

    def __init__(self) -> None:
        self.may_judge = asyncio.Event()
        super().__init__(self._script)

    async def _script(self, request: Request) -> str:
        if request.json_schema is None:
            return "fine"
        await self.may_judge.wait()
        return '"good"'


@operator(pure=True, version="1")
async def judged(text: str) -> str:
    verdict = await llm(user(f"judge {text}"), schema=Literal["bad", "good"])
    return (await llm(user(f"{verdict.parsed} {text}"))).text


async def learned(session: Session, engine: Verdicts) -> asyncio.Task[str]:
    """A call of `judged` that is open, after others like it."""
    engine.may_judge.set()
    for number in range(20):
        await session.run(judged, f"{number}")
    engine.may_judge.clear()
    engine.requests.clear()
    answer = asyncio.create_task(session.run(judged, "new"))
    await until(lambda: engine.requests)
    await ticks(200)
    return answer


async def test_answers_with_few_values_are_guessed_by_those_that_came_before() -> None:
    engine = Verdicts()
    async with Session(engine, speculate="auto") as session:
        answer = await learned(session, engine)
        assert asked(engine) == ["judge new", "good new"]
        engine.may_judge.set()
        assert await answer == "fine" and engine.num_requests == 42


async def test_without_knowing_what_a_step_costs_nothing_is_guessed_by_itself() -> None:
    engine = Verdicts()
    engine.cost = None
    async with Session(engine, speculate="auto") as session:
        answer = await learned(session, engine)
        assert asked(engine) == ["judge new"]
        engine.may_judge.set()
        await answer


async def test_the_call_of_a_tool_that_usually_follows_is_guessed_and_the_tool_runs_early() -> None:
    runs: list[tuple[str, int]] = []

    @operator(pure=True, version="1")
    async def page(book: str, number: int) -> str:
        """A page."""
        runs.append((book, number))
        return f"page {number} of {book}"

    may_ask = asyncio.Event()

    async def script(request: Request) -> ScriptedReply:
        await may_ask.wait()
        turn = sum(message.role == "tool" for message in request.messages)
        if turn == 3:
            return ScriptedReply("done")
        arguments = {"book": request.messages[0].content, "number": turn + 1}
        return ScriptedReply(tool_calls=[ToolCall("page", arguments)])

    @operator(pure=True, version="1")
    async def read(book: str) -> str:
        return (await agent_loop(user(book), tools=[page])).text

    async with Session(ScriptedEngine(script), speculate=LAVISH) as session:
        may_ask.set()
        for number in range(10):
            assert await session.run(read, f"book {number}") == "done"
        may_ask.clear()
        answer = asyncio.create_task(session.run(read, "new"))
        await until(lambda: ("new", 3) in runs)
        may_ask.set()
        assert await answer == "done"
        assert [runs.count(("new", number)) for number in (1, 2, 3)] == [1, 1, 1]


# --- where an engine is idle ----------------------------------------------------------------------


async def test_a_guess_waits_for_a_slot_and_gives_it_back_to_what_is_asked() -> None:
    doors = Doors("q", "then no", "a", "b", q="yes")
    engine = ScriptedEngine(doors, capacity=Capacity(10**6, 16, 10**6, max_requests=3))
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(two_steps, "q", "no"))
        await until(lambda: asked(engine) == ["q", "then no"])
        others = [asyncio.ensure_future(llm(user(text))) for text in "ab"]
        await until(lambda: asked(engine) == ["q", "then no", "a", "b"])
        await until(lambda: engine.num_open == 3)
        assert len(engine.aborted) == 1
        doors.open("a")
        await until(lambda: asked(engine)[4:] == ["then no"])
        doors.open("b")
        doors.open("q")
        assert await answer == "re then yes"
        await asyncio.gather(*others)


async def test_a_guess_does_not_go_where_its_cache_would_be_anothers() -> None:
    doors = Doors("q", q="yes")
    engine = ScriptedEngine(doors, capacity=Capacity(300, 16, 10**6, max_requests=8))
    async with Session(engine, speculate=LAVISH) as session:
        answer = asyncio.create_task(session.run(two_steps, "q", "yes"))
        await ticks(200)
        assert asked(engine) == ["q"]
        doors.open("q")
        assert await answer == "re then yes"
