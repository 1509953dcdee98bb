"""`@cached_node`: equal states run once, at the same time and later."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal, TypedDict

import pytest

pytest.importorskip("langgraph", reason="pip install 'helium_agents[langgraph]'")

from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from helium_agents import MemoryStore, Session
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import EncodingError, OperatorDefinitionError, SessionError
from helium_agents.integrations.langgraph import ChatHelium, cached_node, planned

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class State(TypedDict, total=False):
    text: str
    notes: Annotated[list[str], operator.add]


class Text(TypedDict):
    text: str


chat = ChatHelium()
ran: list[str] = []


@cached_node(version="1")  # `ran` would change it
async def note(state: Text) -> State:
    ran.append(state["text"])
    return {"notes": [(await chat.ainvoke(state["text"])).text]}


@cached_node(version="1", name="noted")
def sync_note(state: Text) -> State:
    ran.append(state["text"])
    return {"notes": [chat.invoke(state["text"]).text]}


BOTH = pytest.mark.parametrize("node", [note, sync_note])


def sends(node: Any, number: int = 5) -> Any:
    graph: Any = StateGraph(State).add_node("note", node)
    return graph.add_conditional_edges(START, lambda _: [Send("note", {"text": "a"})] * number)


@BOTH
async def test_equal_sends_run_once_and_are_remembered(node: Any) -> None:
    ran.clear()
    memo, engine = MemoryStore(), ScriptedEngine({"a": "b"})
    for _ in range(2):
        app = planned(sends(node).compile(), engine, memo=memo)
        assert await app.ainvoke({}) == {"notes": ["b"] * 5}
    assert (ran, engine.num_requests) == (["a"], 1)


def test_without_await_too() -> None:
    ran.clear()
    app = planned(sends(sync_note).compile(), ScriptedEngine({"a": "b"}))
    assert app.invoke({}) == {"notes": ["b"] * 5}
    assert ran == ["a"]


@BOTH
async def test_the_key_is_what_the_annotation_names(node: Any) -> None:
    ran.clear()
    graph: Any = StateGraph(State).add_node("note", node).add_edge(START, "note")
    inputs: list[State] = [{"text": "a"}, {"text": "a", "notes": ["x"]}, {"text": "b"}]
    app = planned(graph.compile(), ScriptedEngine())
    first, second, _ = await app.abatch(inputs)
    assert second["notes"] == ["x", *first["notes"]]
    assert sorted(ran) == ["a", "b"]


async def test_without_a_session_it_is_the_function() -> None:
    @cached_node
    def shout(state: Text) -> State:
        ran.append(state["text"])
        return {"notes": [state["text"].upper()]}

    ran.clear()
    app = sends(shout).compile()
    assert app.invoke({}) == await app.ainvoke({}) == {"notes": ["A"] * 5}
    assert len(ran) == 10


async def test_a_failure_reaches_all_and_is_not_remembered() -> None:
    attempts: list[int] = []

    @cached_node(version="1")
    async def fail(state: Text) -> State:
        attempts.append(1)
        raise LookupError(state["text"])

    async with Session(ScriptedEngine(), memo=MemoryStore()) as session:
        app = planned(sends(fail).compile(), session)
        for number in 1, 2:
            with pytest.raises(LookupError, match="a"):
                await app.ainvoke({})
            assert len(attempts) == number


async def test_an_update_may_be_a_command() -> None:
    @cached_node(version="1")
    async def route(state: Text) -> Command[Literal["note"]]:
        return Command(update={"notes": ["r"]}, goto="note")

    graph: Any = StateGraph(State).add_node("route", route).add_node("note", note)
    memo = MemoryStore()
    for _ in range(2):
        app = planned(graph.add_edge(START, "route").compile(), ScriptedEngine(), memo=memo)
        found = await app.ainvoke({"text": "a"})
        assert found["notes"][0] == "r" and len(found["notes"]) == 2


async def test_what_cannot_be_encoded_is_named() -> None:
    @cached_node(version="1")
    async def bad(state: State) -> dict[str, Any]:
        return {"notes": [object()]}

    graph: Any = StateGraph(State).add_node("bad", bad).add_edge(START, "bad").compile()
    app = planned(graph, ScriptedEngine())
    with pytest.raises(EncodingError, match=r"bad.*result.*notes\[0\].*builtins.object"):
        await app.ainvoke({"text": "a"})
    with pytest.raises(EncodingError, match=r"bad.*state\['text'\].*builtins.object"):
        await app.ainvoke({"text": object()})


async def test_the_source_is_part_of_the_key() -> None:
    def made(word: str) -> Any:
        def say(state: Text) -> State:
            return {"notes": [word]}

        return cached_node(say)

    memo = MemoryStore()
    for word in "one", "two", "one":
        app = planned(sends(made(word), 1).compile(), ScriptedEngine(), memo=memo)
        assert await app.ainvoke({}) == {"notes": [word]}


async def test_on_the_sessions_own_loop_it_does_not_hang() -> None:
    async with Session(ScriptedEngine()):
        with pytest.raises(SessionError, match="a cached node"):
            sends(sync_note, 1).compile().invoke({})


def test_only_a_function_of_a_state_is_taken() -> None:
    def with_config(state: State, config: Any) -> State:
        return state

    with pytest.raises(OperatorDefinitionError, match=r"with_config: it takes state, config"):
        cached_node(with_config)  # type: ignore[arg-type]
    with pytest.raises(OperatorDefinitionError, match="must be a function"):
        cached_node(chat)  # type: ignore[arg-type]
