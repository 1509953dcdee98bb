"""What a planned graph has of its graph: streams, commands, retries, timeouts, and all else."""

from __future__ import annotations

import asyncio
import copy
import operator
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph", reason="pip install 'helium_agents[langgraph]'")

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel

from helium_agents import Session, ToolCall
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.integrations.langgraph import ChatHelium, planned

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*beta.*")


class State(TypedDict, total=False):
    text: str
    notes: Annotated[list[str], operator.add]
    messages: Annotated[list[Any], operator.add]


chat = ChatHelium()


async def ask(state: State) -> State:
    return {"notes": [(await chat.ainvoke(f"what is {state['text']}?")).text]}


def one_node(node: Any = ask, **options: Any) -> Any:
    graph = StateGraph(State).add_node("node", node, **options)
    return graph.add_edge(START, "node")


def plain() -> Session:
    return Session(ScriptedEngine(), rules=(), share=False)


@pytest.mark.parametrize("mode", ["values", "updates", "custom", "tasks", ["values", "custom"]])
async def test_streams_of_every_mode(mode: Any) -> None:
    async def told(state: State) -> State:
        get_stream_writer()({"has": "begun"})
        return await ask(state)

    def told_without_await(state: State) -> State:
        get_stream_writer()({"in": "a thread"})
        return {"notes": [chat.invoke(state["text"]).text]}

    graph = one_node(told).add_node("sync", told_without_await).add_edge("node", "sync").compile()
    async with plain():
        expected = [_shown(each) async for each in graph.astream({"text": "a"}, stream_mode=mode)]
    app = planned(graph, ScriptedEngine())
    assert expected
    found = [_shown(each) async for each in app.astream({"text": "a"}, stream_mode=mode)]
    assert found == expected


def _shown(chunk: Any) -> str:
    """A chunk without the ids that are random."""
    if isinstance(chunk, dict):
        chunk = {name: value for name, value in chunk.items() if name != "id"}
    return str(chunk)


async def test_streams_of_messages() -> None:
    app = planned(one_node().compile(), ScriptedEngine(lambda request: "one two three"))
    found = [each async for each in app.astream({"text": "a"}, stream_mode="messages")]
    assert "".join(str(chunk.text) for chunk, _ in found) == "one two three"
    assert len(found) > 2 and {where["langgraph_node"] for _, where in found} == {"node"}


async def test_commands_lead_on_and_out_of_a_subgraph() -> None:
    async def first(state: State) -> Any:
        return Command(goto=[Send("node", {"text": "b"}), "inner"], update=await ask(state))

    async def leave(state: State) -> Any:
        return Command(graph=Command.PARENT, goto="last", update=await ask(state))

    inner = StateGraph(State).add_node("leave", leave).add_edge(START, "leave").compile()
    builder = StateGraph(State).add_node("first", first, destinations=("node", "inner"))
    builder.add_node("node", ask).add_node("inner", inner).add_node("last", ask)
    graph = builder.add_edge(START, "first").add_edge("last", END).compile()
    async with plain():
        expected = await graph.ainvoke({"text": "a"})
    assert len(expected["notes"]) == 4
    assert await planned(graph, ScriptedEngine()).abatch([{"text": "a"}] * 2) == [expected] * 2


async def test_a_node_is_tried_again_as_its_policy_says() -> None:
    attempts: list[str] = []

    async def flaky(state: State) -> State:
        attempts.append(state["text"])
        update = await ask(state)
        if len(attempts) < 3:
            raise ConnectionError
        return update

    policy, engine = RetryPolicy(max_attempts=3, initial_interval=0.001), ScriptedEngine()
    app = planned(one_node(flaky, retry_policy=policy).compile(), engine)
    assert len((await app.ainvoke({"text": "a"}))["notes"]) == 1
    assert (len(attempts), engine.num_requests) == (3, 1)  # what was answered is not asked again


@pytest.mark.parametrize("way", ["ainvoke", "abatch", "astream"])
async def test_a_steps_timeout_frees_the_engine(way: str) -> None:
    graph, engine = one_node().compile(), ScriptedEngine(latency_s=30)
    app = planned(graph, engine)
    app.step_timeout = 0.05
    assert graph.step_timeout == 0.05  # what is set is the graph's
    with pytest.raises(TimeoutError):
        if way == "ainvoke":
            await app.ainvoke({"text": "a"})
        elif way == "abatch":
            await app.abatch([{"text": "a"}, {"text": "b"}])
        else:
            async for _ in app.astream({"text": "a"}):
                pass
    assert engine.num_requests and not engine.num_open


@pytest.mark.parametrize("way", ["ainvoke", "abatch", "astream"])
async def test_a_run_that_is_cancelled_frees_the_engine(way: str) -> None:
    engine = ScriptedEngine(latency_s=30)
    app = planned(one_node().compile(), engine)

    async def run() -> None:
        if way == "ainvoke":
            await app.ainvoke({"text": "a"})
        elif way == "abatch":
            await app.abatch([{"text": "a"}, {"text": "b"}], return_exceptions=True)
        else:
            async for _ in app.astream({"text": "a"}):
                pass

    task = asyncio.create_task(run())
    for _ in range(1000):
        if not engine.num_open:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not engine.num_open


async def test_tools_that_are_called_at_once_may_fail() -> None:
    def add(first: int, second: int) -> int:
        """Add."""
        return first + second

    def divide(first: int) -> int:
        """Divide by nothing."""
        return first // 0

    def script(request: Request) -> str | ScriptedReply:
        told = [message.content for message in request.messages if message.role == "tool"]
        calls = [ToolCall("add", {"first": n, "second": 1}) for n in (1, 2)]
        return (
            " ".join(told)
            if told
            else ScriptedReply(tool_calls=[*calls, ToolCall("divide", {"first": 1})])
        )

    async def agent(state: State) -> State:
        return {"messages": [await chat.bind_tools([add, divide]).ainvoke(state["messages"])]}

    builder = StateGraph(State).add_node("agent", agent).add_edge(START, "agent")
    builder.add_node("tools", ToolNode([add, divide], handle_tool_errors=lambda error: str(error)))
    builder.add_conditional_edges("agent", tools_condition).add_edge("tools", "agent")
    app = planned(builder.compile(), ScriptedEngine(script))
    for state in await app.abatch([{"messages": [("user", "go")]}] * 2):
        assert state["messages"][-1].text == "2 3 integer division or modulo by zero"


async def test_a_batch_of_threads_is_interrupted_and_goes_on() -> None:
    async def twice(state: State) -> State:
        asked = [interrupt("first?"), interrupt("second?")]
        return {"notes": [*asked, *(await ask(state))["notes"]]}

    saver, engine = InMemorySaver(), ScriptedEngine(lambda request: "said")
    app = planned(one_node(twice).compile(checkpointer=saver), engine)
    configs: Any = [{"configurable": {"thread_id": str(number)}} for number in range(3)]
    await app.abatch([{"text": "a"}] * 3, configs)
    await app.abatch([Command(resume="yes")] * 3, configs)
    ended = await app.abatch([Command(resume=str(number)) for number in range(3)], configs)
    assert [state["notes"] for state in ended] == [["yes", str(n), "said"] for n in range(3)]
    assert engine.num_requests == 1
    assert len([each async for each in app.aget_state_history(configs[0])]) == 3


def test_schemas_and_copies_are_the_graphs() -> None:
    class Form(BaseModel):
        text: str

    builder = StateGraph(Form).add_node("node", lambda form: {}).add_edge(START, "node")
    graph = builder.compile(name="of a form")
    app = planned(graph, ScriptedEngine())
    assert app.get_input_jsonschema() == graph.get_input_jsonschema()
    assert "text" in app.get_output_jsonschema()["properties"]
    assert app.get_input_schema() is graph.get_input_schema() and app.InputType is Form
    assert (app.get_name(), app.name) == ("of a form", "of a form")
    assert copy.copy(app).graph is graph


async def test_events_of_version_three_are_refused() -> None:
    app = planned(one_node().compile(), ScriptedEngine())
    for events in (app.astream_events, app.stream_events):
        with pytest.raises(NotImplementedError, match="for 'v3' open a Session"):
            events({"text": "a"}, version="v3")
