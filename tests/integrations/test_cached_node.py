"""`@cached_node`: equal states run once, at the same time and later."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import pytest

pytest.importorskip("langgraph", reason="pip install 'helium_agents[langgraph]'")

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from helium_agents import MemoryStore, Session
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import (
    EncodingError,
    ImpureCall,
    OperatorDefinitionError,
    RefMisuse,
    SessionError,
)
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


# --- what cannot be: it waits for itself, it wants to be asked -----------------------------------


def one(node: Any, **options: Any) -> Any:
    return StateGraph(State).add_node("n", node).add_edge(START, "n").compile(**options)


async def last(chunks: Any) -> Any:
    return [chunk async for chunk in chunks][-1]


async def all_three(app: Any) -> Any:
    return (await asyncio.gather(*(app.ainvoke({"text": "a"}) for _ in range(3))))[0]


WITHOUT_AWAIT: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda app: app.invoke({"text": "a"}),
    "batch": lambda app: app.batch([{"text": "a"}] * 2)[0],
    "stream": lambda app: [*app.stream({"text": "a"})][-1],
    "run": lambda app: asyncio.run(app.ainvoke({"text": "a"})),
}
WITH_AWAIT: dict[str, Callable[[Any], Any]] = {
    "ainvoke": lambda app: app.ainvoke({"text": "a"}),
    "abatch": lambda app: app.abatch([{"text": "a"}] * 2),
    "astream": lambda app: last(app.astream({"text": "a"})),
    "gather": all_three,
}


@pytest.mark.parametrize(
    ("way", "is_planned", "share"),
    [
        *((way, False, True) for way in (*WITHOUT_AWAIT, *WITH_AWAIT)),
        *((way, True, True) for way in (*WITHOUT_AWAIT, *WITH_AWAIT) if way != "run"),
        ("invoke", True, False), ("ainvoke", False, False),
    ],
)  # fmt: skip
async def test_a_node_that_runs_its_own_graph_is_refused(
    way: str, is_planned: bool, share: bool
) -> None:
    """With its own state, so that it would wait for itself, in whatever thread or task."""

    @cached_node(version="1")
    def in_a_thread(state: State) -> State:
        found: State = WITHOUT_AWAIT[way](app)
        return found

    @cached_node(version="1")
    async def on_the_loop(state: State) -> State:
        found: State = await WITH_AWAIT[way](app)
        return found

    async with Session(ScriptedEngine(), share=share) as session, asyncio.timeout(30):
        graph = one(in_a_thread if way in WITHOUT_AWAIT else on_the_loop)
        app = planned(graph, session) if is_planned else graph
        with pytest.raises(RefMisuse, match=r"(in_a_thread|on_the_loop)\(\.\.\.\) awaits"):
            await app.ainvoke({"text": "a"})


async def test_two_nodes_that_run_one_another_are_refused() -> None:
    both_run = threading.Barrier(2)

    @cached_node(version="1")
    def first(state: Text) -> State:
        both_run.wait(timeout=20)
        found: State = one(second).invoke(state)
        return found

    @cached_node(version="1")
    def second(state: Text) -> State:
        both_run.wait(timeout=20)
        found: State = one(first).invoke(state)
        return found

    graph: Any = StateGraph(State).add_node("first", first).add_node("second", second)
    graph = graph.add_edge(START, "first").add_edge(START, "second").compile()
    async with Session(ScriptedEngine()), asyncio.timeout(30):
        with pytest.raises(
            RefMisuse, match=r"first\(\.\.\.\) awaits second\(\.\.\.\) awaits first"
        ):
            await graph.ainvoke({"text": "a"})


@pytest.mark.parametrize("asks", [lambda: interrupt("well?"), get_stream_writer])
@pytest.mark.parametrize("is_async", [True, False])
async def test_an_update_for_all_cannot_ask_for_its_run(
    is_async: bool, asks: Callable[[], Any]
) -> None:
    @cached_node(version="1")
    async def asking(state: Text) -> State:
        return {"text": str(asks())}

    @cached_node(version="1", name="asking")
    def in_a_thread(state: Text) -> State:
        return {"text": str(asks())}

    memo = MemoryStore()
    graph = one(asking if is_async else in_a_thread, checkpointer=InMemorySaver())
    app = planned(graph, ScriptedEngine(), memo=memo)
    with pytest.raises(ImpureCall, match=r"the cached node asking called interrupt\(\)"):
        await app.ainvoke({"text": "a"}, {"configurable": {"thread_id": "1"}})
