"""Events say which call, whose, for which row, and when what happened to it."""

from __future__ import annotations

from typing import Any

import pytest

from helium_agents import MemoryStore, Session, gather, llm, operator, prompt, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.telemetry.events import (
    CallSettled,
    EngineDescribed,
    EngineStarted,
    EngineStarting,
    Event,
    ItemClosed,
    ItemOpened,
    ModelOpened,
    RequestAnswered,
)
from helium_agents.telemetry.summary import Summary


@operator(pure=True)
async def leaf(text: str) -> str:
    return (await llm(user(text))).text


@operator
async def branch(row: str) -> list[str]:
    return list(await gather(leaf("shared"), leaf(row), leaf(row)))


async def events_of(rows: list[str], **options: Any) -> list[Event]:
    events: list[Event] = []
    async with Session(ScriptedEngine(), observers=[events.append], **options) as session:
        assert len([found async for found in session.map(branch, rows)]) == len(rows)
    return events


def settled(events: list[Event], kind: str) -> list[CallSettled]:
    return [event for event in events if isinstance(event, CallSettled) and event.kind == kind]


async def test_calls_have_numbers_of_their_own_and_know_their_caller() -> None:
    events = await events_of(["a", "b"])
    operators, models = settled(events, "operator"), settled(events, "llm")
    numbers = [event.call for event in [*operators, *models]]
    assert 0 not in numbers and len(set(numbers)) == len(numbers)
    by_number = {event.call: event for event in operators}
    assert {by_number[event.parent].label for event in models} == {"leaf"}
    parents = {event.parent for event in operators}
    assert len(parents) == 2 and not parents & set(by_number), "those of the two rows, plain ones"


async def test_a_merged_call_names_the_one_that_asked() -> None:
    operators = settled(await events_of(["a"]), "operator")
    leaders = {event.call for event in operators if event.source == "body"}
    merged = [event for event in operators if event.source != "body"]
    assert {event.leader for event in operators} == leaders
    assert [event.source for event in merged] == ["merged"]
    assert merged[0].call not in leaders
    leader = next(event for event in operators if event.call == merged[0].leader)
    assert merged[0].usage is leader.usage


async def test_calls_and_items_name_the_top_level_item() -> None:
    events = await events_of(["a", "b", "c"])
    assert [e.item for e in events if isinstance(e, ItemOpened)] == [0, 1, 2]
    assert {e.item for e in events if isinstance(e, ItemClosed)} == {0, 1, 2}
    assert {e.item for e in settled(events, "llm")} == {0, 1, 2}


async def test_times_are_in_order() -> None:
    for event in settled(await events_of(["a"]), "llm"):
        usage = event.usage
        assert usage.sent_s is not None and usage.first_token_s is not None
        assert usage.end_s is not None
        assert usage.asked_s <= usage.sent_s <= usage.first_token_s <= usage.end_s
        assert usage.num_attempts == 1 and usage.request_id
        assert usage.prompt_tokens == 2 and usage.output_tokens > 0


async def test_what_was_remembered_was_never_sent() -> None:
    store = MemoryStore()
    await events_of(["a"], memo=store)
    operators = settled(await events_of(["a"], memo=store), "operator")
    assert {event.source for event in operators} == {"memo"}
    assert {event.usage.sent_s for event in operators} == {None}


async def test_a_call_names_its_site_its_model_and_its_inputs() -> None:
    events: list[Event] = []
    async with Session(ScriptedEngine(), observers=[events.append]):

        @operator
        async def outer() -> str:
            return await inner()

        @operator
        async def inner() -> str:
            first = llm(user("a"))
            return (await llm(user(prompt("of {first}", first=first)))).text

        await outer()
        await llm(user("alone"))
    first, second, alone = settled(events, "llm")
    assert first.caller == second.caller and first.caller.endswith("<locals>.inner")
    assert second.inputs == (first.call,) and first.inputs == ()
    assert first.body is second.body and first.body is not None
    assert first.body.caller is not None
    assert first.body.caller.name.endswith("<locals>.outer")
    assert first.body.caller.caller is None
    assert (alone.caller, alone.parent, alone.body) == ("", 0, None)
    assert {event.model for event in (first, second, alone)} == {"scripted"}


async def test_nothing_of_it_is_made_where_nobody_observes(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Event] = []
    monkeypatch.setattr(Summary, "__call__", lambda _, event: found.append(event))
    async with Session(ScriptedEngine()):
        await branch("a")
    assert {type(event) for event in found} == {
        ModelOpened, EngineStarting, EngineStarted, CallSettled,
    }  # fmt: skip
    for event in settled(found, "llm"):
        assert (event.body, event.model, event.inputs) == (None, "", ())


async def test_an_answer_tells_what_the_engine_was_asked() -> None:
    events = await events_of(["a"])
    answered = {e.request_id: e for e in events if isinstance(e, RequestAnswered)}
    for call in settled(events, "llm"):
        if call.source == "engine":
            answer = answered[call.usage.request_id or ""]
            assert len(answer.prompt_token_ids) == call.usage.prompt_tokens
            assert len(answer.token_ids[0]) == call.usage.output_tokens
            assert answer.messages[0] == ("user", answer.messages[0][1])
    described = [event for event in events if isinstance(event, EngineDescribed)]
    assert len(described) == 1, "nothing of it has changed"
    assert events.index(described[0]) < min(map(events.index, answered.values()))


async def test_draws_of_one_call_are_numbered_too() -> None:
    events: list[Event] = []
    texts = iter(["no", "no", "1"])
    engine = ScriptedEngine(lambda request: next(texts))
    async with Session(engine, observers=[events.append]):
        call = llm(user("a number"), schema=int, temperature=1.0, retries=2)
        assert (await call).parsed == 1
    numbers = [event.call for event in settled(events, "llm")]
    assert len(numbers) == 3 and len({0, *numbers}) == 4
