"""`explain()`: the plan of a session as text, stable enough to compare with."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from helium_agents import MemoryStore, Session, gather, llm, operator, prompt, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import SessionError
from helium_agents.graph.plan_node import Compute
from helium_agents.runtime.executed_plan import ExecutedPlan
from tests.runtime.gate import Gate, ticks


@operator
async def expert(role: str) -> str:
    return (await llm(user(f"as {role}"), max_tokens=64)).text


@operator(pure=True, version="1")
async def merge(text: Any) -> str:
    return (await llm(user(f"merge {text}"))).text


@operator
async def answer(question: str) -> str:
    views = await gather(*(expert(role) for role in ("doctor", "lawyer", "doctor")))
    draft = llm(user(" ".join(views)), max_tokens=128)
    short = llm(user(prompt("shorten {it}", it=draft)), max_tokens=16)
    long = llm(user(prompt("shorten {it}", it=draft)), max_tokens=32)
    found = await gather(merge.defer(short), merge.defer(long), llm(user("luck"), temperature=1))
    return str(found[0])


def without_keys(text: str) -> str:
    return re.sub(r" key=[0-9a-f]{8}", "", text)


async def explained(optimized: bool, **options: Any) -> str:
    async with Session(ScriptedEngine(), record=True, **options) as session:
        await answer("q")
        return without_keys(session.explain(optimized=optimized))


async def test_as_asked() -> None:
    assert await explained(False) == (
        "14 nodes: 6 operator calls, 8 model calls, of which 8 to compute\n"
        "#1 answer\n"
        "  #2 expert\n"
        '    #3 llm max_tokens=64 "as doctor"\n'
        "  #4 expert\n"
        '    #5 llm max_tokens=64 "as lawyer"\n'
        "  #6 expert\n"
        '    #7 llm max_tokens=64 "as doctor"\n'
        '  #8 llm max_tokens=128 "3570 4930 7f71 1f18 90d2 ... 8c58 3570 4930 7f71 1f18"\n'
        '  #9 llm max_tokens=16 of #8 "shorten {#8}"\n'
        '  #10 llm max_tokens=32 of #8 "shorten {#8}"\n'
        "  #11 merge of #9\n"
        "  #12 merge of #10\n"
        # of #11 too, as its text is the same:
        '    #13 llm max_tokens=256 "merge 9e6d 3800 4436 c67a"\n'
        '  #14 llm max_tokens=256 "luck"'
    )


async def test_optimized() -> None:
    text = await explained(True)
    assert '    #7 llm max_tokens=64 = #3 "as doctor"' in text
    assert '  #9 llm max_tokens=16 of #8 = start of #10 "shorten {#8}"' in text
    assert '  #14 llm max_tokens=256 "luck"' in text


async def test_rows_that_run_at_once_are_told_apart_as_if_they_had_not() -> None:
    async def row(number: int) -> str:
        await asyncio.sleep(0.001 * (3 - number))
        return await expert(f"{number % 2}")

    async with Session(ScriptedEngine(), record=True) as session:
        async for _ in session.map(expert, ["one", "two"]):
            pass
        async for _ in session.map(row, range(3), ordered=False):
            pass
        first, *lines = without_keys(session.explain(optimized=True)).splitlines()
    assert first == "10 nodes: 5 operator calls, 5 model calls, of which 4 to compute"
    assert lines[:4] == [
        "#1 expert",
        '  #2 llm max_tokens=64 "as one"',
        "#3 expert",
        '  #4 llm max_tokens=64 "as two"',
    ]
    numbers = [int(line.split()[0].removeprefix("#")) for line in lines]
    assert numbers == list(range(1, 11)), "from top to bottom"


async def test_of_long_prompts_both_ends_are_shown() -> None:
    async with Session(ScriptedEngine(), record=True) as session:
        llm(user("a document\nof words " + "and words " * 1000 + "and a question"))
        (_, line) = session.explain().splitlines()
    assert line.endswith('"a document of words and ... and words and a question"')


async def test_is_the_same_every_time() -> None:
    assert await explained(True) == await explained(True)


async def test_is_the_same_whatever_was_remembered_or_ran() -> None:
    store = MemoryStore()
    first = await explained(False, memo=store)
    lines = first.splitlines()
    second = (await explained(False, memo=store)).splitlines()
    # what a remembered operator would have called is not known
    assert [line.split()[1] for line in second[1:9]] == [line.split()[1] for line in lines[1:9]]


async def test_before_anything_ran() -> None:
    async with Session(ScriptedEngine(), record=True) as session:
        draft = llm(user("a"))
        llm(user(prompt("b {it}", it=draft)))
        assert without_keys(session.explain()) == (
            "2 nodes: 0 operator calls, 2 model calls, of which 2 to compute\n"
            '#1 llm max_tokens=256 "a"\n'
            '#2 llm max_tokens=256 of #1 "b {#1}"'
        )


async def test_keys_are_those_of_the_calls() -> None:
    async with Session(ScriptedEngine(), record=True) as session:
        ref = llm(user("a"))
        assert ref.node.key is not None
        assert f"key={ref.node.key.hex()[:8]}" in session.explain()
        await ref
        assert f"key={ref.node.key.hex()[:8]}" in session.explain()


async def test_shows_what_this_session_does() -> None:
    async with Session(ScriptedEngine(), record=True, share=False) as session:
        await gather(llm(user("a")), llm(user("a")))
        assert session.explain(optimized=True) == session.explain()
    async with Session(ScriptedEngine(), record=True, rules=()) as session:
        await gather(llm(user("a")), llm(user("a")))
        assert " = #1 " in session.explain(optimized=True), "no rule, but it is under way"


async def test_tells_what_was_known_joined_cut_and_never_asked() -> None:
    gate = Gate()

    def script(request: Request) -> Any:
        return gate(request) if request.messages[-1].content == "b" else "a"

    async with Session(ScriptedEngine(script), record=True) as session:
        await llm(user("a"), max_tokens=32)
        first = llm(user("b"), max_tokens=64).start()
        await ticks()
        others = [llm(user("b"), max_tokens=64).start(), llm(user("b"), max_tokens=8).start()]
        await ticks()
        gate.open()
        await gather(first, *others)
        await gather(llm(user("a"), max_tokens=32), llm(user("a"), max_tokens=4))
        llm(user("c"))
        assert without_keys(session.explain(optimized=True)).splitlines()[1:] == [
            '#1 llm max_tokens=32 "a"',
            '#2 llm max_tokens=64 "b"',
            '#3 llm max_tokens=64 = #2 "b"',
            '#4 llm max_tokens=8 = start of #2 "b"',
            '#5 llm max_tokens=32 known "a"',
            '#6 llm max_tokens=4 known "a"',
            '#7 llm max_tokens=256 not asked "c"',
        ]


async def test_a_call_that_is_not_shared_is_not_merged() -> None:
    async with Session(ScriptedEngine(), record=True) as session:
        await gather(llm(user("a"), share=False), llm(user("a"), share=False), llm(user("a")))
        assert " = #" not in session.explain(optimized=True)


async def test_needs_a_record() -> None:
    async with Session(ScriptedEngine()) as session:
        with pytest.raises(SessionError, match="record=True"):
            session.explain()


async def test_of_a_session_without_calls() -> None:
    async with Session(ScriptedEngine(), record=True) as session:
        for optimized in (False, True):
            assert session.explain(optimized=optimized) == (
                "0 nodes: 0 operator calls, 0 model calls, of which 0 to compute"
            )


async def test_a_recorded_plan_is_valid_and_counts_what_an_engine_computes() -> None:
    engine = ScriptedEngine()
    async with Session(engine, record=True) as session:
        await answer("q")
        executed = session._executed
        assert isinstance(executed, ExecutedPlan)
        plan = executed.plan(as_executed=True)
        plan.check()
        left = [n for n in plan if n.kind == "llm" and isinstance(n.step, Compute)]
        assert len(left) == engine.num_requests
