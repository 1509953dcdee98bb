"""The planner: which rows it knows, and when it looks at them again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from helium_agents import Session, assistant, gather, llm, prompt, user
from helium_agents.engines.engine import Capacity, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.memo.memory import MemoryStore
from helium_agents.optimizer.step_cost import STEP_COSTS, StepCost
from helium_agents.runtime.planner import Planner
from helium_agents.telemetry.events import Event, ItemClosed, ScheduleChosen

ROOM = Capacity(kv_tokens=6144, block_tokens=16, max_model_tokens=2048, max_requests=64)


class Costed(ScriptedEngine):
    """A scripted engine that says what a step takes, and holds little."""

    def __init__(self) -> None:
        super().__init__(lambda request: "yes", capacity=ROOM, latency_s=0.02)

    @property
    def takes_hints(self) -> bool:
        return True

    @property
    def cost(self) -> StepCost:
        return STEP_COSTS["cpu-medium"]


async def debate(row: int) -> list[str]:
    """Declares all of its calls before it awaits any."""
    texts = [f"agent {agent} of row {row} " * 60 for agent in range(3)]
    firsts = [llm(user(text), max_tokens=16) for text in texts]
    lasts = [llm(user(prompt(text + "{it}", it=firsts[0])), max_tokens=16) for text in texts]
    return [(await last).text for last in lasts]


async def _chosen(rows: int, **options: Any) -> list[ScheduleChosen]:
    seen: list[ScheduleChosen] = []

    def observe(event: Event) -> None:
        if isinstance(event, ScheduleChosen):
            seen.append(event)

    engine = Costed()
    async with Session(engine, observers=[observe], **options) as session:
        found = [each async for each in session.map(debate, range(rows))]
    assert found == [["yes"] * 3] * rows
    return seen


def chosen(rows: int, **options: Any) -> list[ScheduleChosen]:
    """What is chosen, in virtual time: the same each time."""
    return run_in_virtual_time(_chosen(rows, **options))


def test_rows_are_looked_at_when_no_more_of_them_come() -> None:
    seen = chosen(40)
    assert seen[0].gain > 1, "the KV cache holds six rows"
    assert seen[0].predicted_s is not None
    assert len(seen) <= 8, "and when half of them have ended"
    assert all(event.gain >= 1.05 for event in seen if event.policy != "everything open")


@pytest.mark.slow
@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("gap_s", [0.0, 0.01, 0.04])
def test_rows_that_come_a_few_at_a_time_are_waited_for(has_length: bool, gap_s: float) -> None:
    """On a real machine it takes a while to open rows, while in virtual time all come at once."""
    open_then: list[int] = []

    async def slow(row: int) -> list[str]:
        await asyncio.sleep(gap_s * (row // 8))
        return await debate(row)

    async def run() -> None:
        opened: set[int | None] = set()

        def answer(request: Request) -> int:
            opened.add(request.item)
            return request.max_tokens

        held = replace(ROOM, kv_tokens=3 * ROOM.kv_tokens)
        engine = SimulatedEngine(STEP_COSTS["cpu-medium"], held, answer)

        def observe(event: Event) -> None:
            if isinstance(event, ItemClosed):
                opened.discard(event.index)
            elif isinstance(event, ScheduleChosen) and event.policy != "everything open":
                open_then.append(len(opened))

        async with Session(engine, observers=[observe]) as session:
            rows = range(60) if has_length else iter(range(60))
            async for _ in session.map(slow, rows):
                pass

    run_in_virtual_time(run())
    assert open_then[0] <= 10, "the KV cache holds 18, and the engine is busy with fewer"


def test_rows_that_never_come_are_not_waited_for() -> None:
    asked: list[tuple[float, float]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def observe(event: Event) -> None:
            if isinstance(event, ScheduleChosen):
                asked.append((loop.time(), event.gain))

        async def rows() -> AsyncIterator[int]:
            for row in range(30):
                yield row
            await asyncio.sleep(1000)

        async with Session(Costed(), observers=[observe]) as session:
            async for _ in session.map(debate, rows()):
                pass

    run_in_virtual_time(run())
    assert asked[0][0] < 0.3 and asked[0][1] > 1


async def test_the_engine_is_told_what_calls_to_come_begin_with() -> None:
    engine = Costed()
    async with Session(engine) as session:
        async for _ in session.map(debate, range(40)):
            pass
    hints = [(request.hints or {}).get("helium_used_tokens") for request in engine.requests]
    told = [
        (hint / len(request.prompt_token_ids), "yes" in request.messages[-1].content)
        for request, hint in zip(engine.requests, hints, strict=True)
        if hint is not None
    ]
    assert all(share > 0.9 for share, is_last in told if not is_last), "each goes on"
    assert sum(share < 0.2 for share, is_last in told if is_last) > 20, "nothing comes after them"


async def test_of_rows_that_await_each_round_nothing_is_told_to_be_of_no_use() -> None:
    async def rounds(row: int) -> list[str]:
        texts = [f"agent {agent} of row {row} " * 60 for agent in range(3)]
        said = [reply.text for reply in await gather(*(llm(user(text)) for text in texts))]
        heard = user(" ".join(said))
        chats = [
            (user(text), assistant(each), heard) for text, each in zip(texts, said, strict=True)
        ]
        return [reply.text for reply in await gather(*(llm(*chat) for chat in chats))]

    engine, seen = Costed(), list[ScheduleChosen]()

    def observe(event: Event) -> None:
        if isinstance(event, ScheduleChosen):
            seen.append(event)

    async with Session(engine, observers=[observe]) as session:
        async for _ in session.map(rounds, range(40)):
            pass
    assert seen[0].compared and seen[0].source == "declared calls", "the first rounds do not fit"
    of_first = [each for each in engine.requests if len(each.messages) == 1]
    assert {(each.hints or {}).get("helium_used_tokens") for each in of_first[:30]} == {None}


def test_rows_that_ask_two_models_are_planned_once_both_have_started() -> None:
    seen: list[ScheduleChosen] = []

    def observe(event: Event) -> None:
        if isinstance(event, ScheduleChosen):
            seen.append(event)

    async def both(row: int) -> str:
        texts = [f"agent {agent} of row {row} " * 60 for agent in range(3)]
        firsts = [llm(user(text), max_tokens=16) for text in texts]
        lasts = [
            llm(user(prompt(text + "{it}", it=firsts[0])), max_tokens=16, model="other")
            for text in texts
        ]
        return (await gather(*lasts))[0].text

    async def run() -> None:
        engines = {"one": Costed(), "other": Costed()}  # each starts when it is asked first
        async with Session(engines, observers=[observe]) as session:
            async for _ in session.map(both, range(60)):
                pass

    run_in_virtual_time(run())
    assert not seen[0].compared
    assert seen[1].compared and seen[1].source == "declared calls"


async def one_by_one(row: int) -> list[str]:
    """Asks one after the other what it could ask at once."""
    calls = [llm(user(f"agent {agent} of row {row} " * 60), max_tokens=16) for agent in range(3)]
    return [(await call).text for call in calls]


def test_rows_that_ask_one_call_after_the_other_are_planned_by_a_profile_the_next_time() -> None:
    profiles = MemoryStore()

    async def sources(rows: range) -> set[str]:
        seen: set[str] = set()

        def observe(event: Event) -> None:
            if isinstance(event, ScheduleChosen):
                seen.add(event.source)

        async with Session(Costed(), memo=profiles, observers=[observe]) as session:
            async for _ in session.map(one_by_one, rows):
                pass
        return seen

    assert "declared calls" in run_in_virtual_time(sources(range(40)))
    assert run_in_virtual_time(sources(range(40, 80))) == {"profile"}


def test_few_rows_and_a_schedule_of_your_own_are_not_looked_at() -> None:
    assert chosen(3) == []
    assert chosen(40, max_open=2) == []


async def test_an_engine_that_does_not_say_what_a_step_takes_is_left_alone() -> None:
    async with Session(ScriptedEngine(lambda request: "yes", capacity=ROOM)) as session:
        async for _ in session.map(debate, range(20)):
            pass
        assert session.summary.choosing_s == 0.0


@pytest.mark.parametrize("step", ["begin", "declare", "ask", "choose", "send", "answer", "end"])
def test_a_planner_that_fails_costs_no_answer(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise ZeroDivisionError("no cost at all")

    monkeypatch.setattr(Planner, step, fail)
    with pytest.warns(RuntimeWarning, match="all rows stay open: ZeroDivisionError"):
        chosen(40)  # looks at the answers
