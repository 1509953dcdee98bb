"""`planned(graph)`: the graph's own results, its batches merged."""

from __future__ import annotations

import asyncio
import operator
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph", reason="pip install 'helium_agents[langgraph]'")

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from helium_agents import MemoryStore, Session
from helium_agents import operator as op
from helium_agents.engines.engine import Completion, OnDelta, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import SessionError
from helium_agents.graph.trace import entered_frame
from helium_agents.integrations.langgraph import ChatHelium, cached_node, planned, work
from helium_agents.integrations.langgraph.loop_thread import LoopThread
from helium_agents.runtime.learning.profiles import decode_profile

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class State(TypedDict, total=False):
    text: str
    notes: Annotated[list[str], operator.add]
    rounds: int


chat = ChatHelium()


async def read(state: State) -> State:
    return {"notes": [(await chat.ainvoke(f"read {state['text']}")).text], "rounds": 0}


def fan_out(state: State) -> list[Send]:  # hides what is behind it from get_graph()
    return [Send("remark", {"text": note}) for note in state["notes"] * 3]


def remark(state: State) -> State:  # a sync node, which runs in a thread
    return {"notes": [chat.invoke(f"remark on {state['text']}").text]}


async def again(state: State) -> State:
    text = (await chat.ainvoke(f"again {state['notes'][-1]}")).text
    return {"notes": [text], "rounds": state["rounds"] + 1}


def built(checkpointer: Any = None, asks: bool = False) -> Any:
    inner = StateGraph(State).add_node("again", again).add_edge(START, "again")
    inner.add_conditional_edges("again", lambda state: END if state["rounds"] > 1 else "again")
    graph = StateGraph(State)
    graph.add_node("read", read).add_node("remark", remark).add_node("loop", inner.compile())
    graph.add_edge(START, "read").add_conditional_edges("read", fan_out)
    if asks:
        graph.add_node("ask", lambda state: {"notes": [interrupt("well?")]})
        graph.add_edge("remark", "ask").add_edge("ask", "loop")
    else:
        graph.add_edge("remark", "loop")
    return graph.compile(checkpointer=checkpointer)


INPUTS: list[State] = [{"text": "a"}, {"text": "b"}, {"text": "a"}]


async def plain(graph: Any, inputs: list[Any], config: Any = None) -> tuple[list[Any], int]:
    engine = ScriptedEngine()
    async with Session(engine, rules=(), share=False):
        return [await graph.ainvoke(each, config) for each in inputs], engine.num_requests


async def test_router_send_loop_and_subgraph() -> None:
    graph, engine = built(), ScriptedEngine()
    expected, num_plain = await plain(graph, INPUTS)
    assert await planned(graph, engine).abatch(INPUTS) == expected
    # of three equal Sends one is asked, of two equal rows one
    assert (num_plain, engine.num_requests) == (3 * 6, 2 * 4)
    async with Session(ScriptedEngine()) as session:
        app = planned(graph, session)
        assert [await app.ainvoke(each) for each in INPUTS] == expected
        states = [state async for state in app.astream(INPUTS[0], stream_mode="values")]
    assert states[-1] == expected[0]


async def test_five_equal_sends_are_one_request_with_callbacks_of_their_own() -> None:
    started: set[Any] = set()
    ended: set[Any] = set()

    class Runs(BaseCallbackHandler):
        def on_chat_model_start(self, *_: Any, run_id: Any, **__: Any) -> None:
            started.add(run_id)

        def on_llm_end(self, *_: Any, run_id: Any, **__: Any) -> None:
            ended.add(run_id)

    async def note(state: State) -> State:
        return {"notes": [(await model.ainvoke(state["text"])).text]}

    engine, usage, model = ScriptedEngine(), UsageMetadataCallbackHandler(), ChatHelium()
    graph: Any = StateGraph(State).add_node("note", note)
    graph.add_conditional_edges(START, lambda _: [Send("note", {"text": "a b c"})] * 5)
    app = planned(graph.compile(), engine)
    found = await app.ainvoke({}, {"callbacks": [Runs(), usage]})
    assert len(found["notes"]) == 5 and len({*found["notes"]}) == 1
    assert engine.num_requests == 1
    assert started == ended and len(started) == 5
    (total,) = usage.usage_metadata.values()
    assert (total["input_tokens"], total["output_tokens"]) == (4, 4)


async def test_interrupt_and_resume() -> None:
    def config() -> Any:
        return {"configurable": {"thread_id": "1"}}

    graph = built(InMemorySaver(), asks=True)
    await plain(graph, [INPUTS[0]], config())
    (expected,), _ = await plain(graph, [Command(resume="yes")], config())
    app = planned(built(InMemorySaver(), asks=True), ScriptedEngine())
    stopped = await app.ainvoke(INPUTS[0], config())
    assert "__interrupt__" in stopped
    assert app.get_state(config()).next == ("ask",)  # what is not planned is the graph's own
    assert await app.ainvoke(Command(resume="yes"), config()) == expected


async def test_an_entrypoint_with_tasks() -> None:
    @task
    async def judge(text: str) -> str:
        return (await chat.ainvoke(text)).text

    @entrypoint()
    async def flow(text: str) -> list[str]:
        futures = [judge(text) for _ in range(3)]
        return [await future for future in futures]

    engine = ScriptedEngine()
    expected, num_plain = await plain(flow, ["a", "a"])
    assert await planned(flow, engine).abatch(["a", "a"]) == expected
    assert (num_plain, engine.num_requests) == (6, 1)


async def test_operators_are_nodes_and_graphs_are_operators() -> None:
    @op(pure=True, version="1")
    async def shout(state: dict[str, str]) -> dict[str, str]:
        return {"text": str((await chat.ainvoke(state["text"])).text)}

    graph: Any = StateGraph(State).add_node("shout", shout).add_edge(START, "shout").compile()
    engine = ScriptedEngine()
    (expected, *_), _ = await plain(graph, INPUTS)
    assert (await planned(graph, engine).abatch(INPUTS))[0] == expected
    async with Session(engine):
        assert await op(graph.ainvoke)(INPUTS[0]) == expected
    assert engine.num_requests == 2 + 1


async def test_failures_of_a_batch_are_raised_or_returned() -> None:
    def fail(state: State) -> State:
        raise LookupError(state["text"])

    graph = StateGraph(State).add_node("fail", fail).add_edge(START, "fail").compile()
    app = planned(graph, ScriptedEngine())
    with pytest.raises(LookupError, match="a"):
        await app.abatch(INPUTS)
    found = await app.abatch(INPUTS, return_exceptions=True)
    assert [(type(each), each.args) for each in found] == [
        (LookupError, ("a",)), (LookupError, ("b",)), (LookupError, ("a",))
    ]  # fmt: skip


async def test_what_streams_and_what_shows_is_the_graphs_own() -> None:
    graph = built()
    async with Session(ScriptedEngine()) as session:
        app = planned(graph, session).with_config({"tags": ["t"]})
        updates = [each async for each in app.astream(INPUTS[0], stream_mode="updates")]
        events = [each async for each in app.astream_events(INPUTS[0], version="v2")]
    assert [*updates[0]] == ["read"] and {*map(len, updates)} == {1}
    assert {"on_chat_model_start", "on_chat_model_end"} <= {each["event"] for each in events}
    assert {*app.get_graph().nodes} == {*graph.get_graph().nodes}
    assert app.name == graph.name


def asks() -> Any:
    graph = StateGraph(State).add_node("ask", remark).add_edge(START, "ask")
    return graph.compile()


def engine_that_says(name: str) -> ScriptedEngine:
    return ScriptedEngine(lambda _: name, identity=name)


def test_without_await_it_is_the_graph_in_a_session() -> None:
    engine = engine_that_says("its own")
    app = planned(asks(), engine)
    answer = {"text": "a", "notes": ["its own"]}
    assert app.invoke({"text": "a"}) == answer
    assert app.batch([{"text": "a"}] * 3) == [answer] * 3
    assert [*app.stream({"text": "a"})] == [{"ask": {"notes": ["its own"]}}]
    assert (engine.num_requests, engine.num_starts) == (3, 3)  # a session, and an answer, for each
    assert entered_frame() is None


def test_threads_that_run_it_at_once_share_a_session() -> None:
    engine = ScriptedEngine(latency_s=0.01)
    app = planned(asks(), engine)
    at_once = threading.Barrier(3)

    def run(_: int) -> Any:
        chunks = app.stream({"text": "a"})
        at_once.wait(timeout=30)
        first = next(chunks)
        at_once.wait(timeout=30)
        return [first, *chunks]

    with ThreadPoolExecutor(3) as pool:
        one, two, three = pool.map(run, range(3), timeout=60)
    assert one == two == three
    assert (engine.num_requests, engine.num_starts) == (1, 1)


def test_threads_may_have_one_engine_for_several_graphs_and_models() -> None:
    """They run on one event loop, beyond which no engine can be used."""
    loops: set[Any] = set()

    class OfOneLoop(ScriptedEngine):
        async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
            loops.add(asyncio.get_running_loop())
            return await super().complete(request, on_delta)

    engine = OfOneLoop()
    model = ChatHelium(engine=engine)
    runs = [partial(planned(asks(), engine).invoke, {"text": text}) for text in "abc"]
    with ThreadPoolExecutor(4) as pool:
        ended = [pool.submit(each) for each in (*runs, partial(model.invoke, "d"))]
        assert all(each.result(timeout=30) for each in ended)
    model.close()
    assert (len(loops), engine.num_requests) == (1, 4)


def test_twenty_threads_and_one_event_loop_after_another() -> None:
    engine = ScriptedEngine()
    app = planned(built(), engine)
    expected = asyncio.run(app.ainvoke(INPUTS[0]))
    assert asyncio.run(app.ainvoke(INPUTS[0])) == expected
    threads = planned(asks(), engine)
    with ThreadPoolExecutor(20) as pool:
        found = pool.map(threads.invoke, [{"text": f"{number % 4}"} for number in range(20)])
    assert len({each["notes"][0] for each in found}) == 4


def test_a_graph_without_await_in_what_another_one_runs_says_so() -> None:
    inner = planned(asks(), ScriptedEngine())

    @cached_node(version="1")
    async def node(state: State) -> State:
        found: State = inner.invoke({"text": "a"})
        return found

    @cached_node(version="1")
    async def streamed(state: State) -> State:
        return {"notes": [str(each) for each in inner.stream({"text": "a"})]}

    async def ask(each: Any) -> Any:
        return await each({"text": "a"})

    for each in node, streamed:
        outer = LoopThread(ScriptedEngine(), {})
        with pytest.raises(SessionError, match="use ainvoke"):
            outer.submit(ask(each)).result()
        outer.close()


async def test_without_await_in_a_session_that_is_given() -> None:
    async with Session(engine_that_says("given")) as session:
        app = planned(asks(), session)
        with pytest.raises(SessionError, match="use ainvoke"):
            app.invoke({"text": "a"})
        found = await asyncio.to_thread(app.invoke, {"text": "a"})
    assert found == {"text": "a", "notes": ["given"]}


def test_a_stream_without_await_leaves_the_consumers_session_alone() -> None:
    engine = engine_that_says("inner")
    for _ in planned(asks(), engine).stream({"text": "a"}):
        assert entered_frame() is None
        assert engine.is_started
        break
    assert not engine.is_started


@pytest.mark.parametrize("way", ["astream", "astream_events"])
async def test_a_stream_leaves_the_consumers_session_alone(way: str) -> None:
    async def said() -> str:
        return (await chat.ainvoke("who?")).text

    async with Session(engine_that_says("outer")):
        inner = getattr(planned(asks(), engine_that_says("inner")), way)({"text": "a"})
        other = getattr(planned(asks(), engine_that_says("other")), way)({"text": "a"})
        await anext(inner)
        await anext(other)
        assert await said() == "outer"
        await asyncio.create_task(inner.aclose())  # in another task
        await other.aclose()
        assert await said() == "outer"
    assert len(asyncio.all_tasks()) == 1


async def test_a_stream_that_is_left_does_nothing_more() -> None:
    engine = ScriptedEngine()
    chunks = planned(built(), engine).astream(INPUTS[0], stream_mode="updates")
    assert [*await anext(chunks)] == ["read"]
    await asyncio.sleep(0.05)  # a graph does nothing before the next step is asked for
    assert engine.num_requests == 1
    await chunks.aclose()
    assert len(asyncio.all_tasks()) == 1


async def test_a_streams_error_and_cancellation_reach_the_consumer() -> None:
    def fail(state: State) -> State:
        raise LookupError(state["text"])

    graph = StateGraph(State).add_node("fail", fail).add_edge(START, "fail").compile()
    with pytest.raises(LookupError, match="a"):
        async for _ in planned(graph, ScriptedEngine()).astream(INPUTS[0]):
            pass
    engine = ScriptedEngine(latency_s=3600)
    waiting = asyncio.create_task(anext(planned(built(), engine).astream(INPUTS[0])))
    while not engine.num_open:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (engine.num_open, len(asyncio.all_tasks())) == (0, 1)


async def test_a_subgraph_without_await_says_that_the_loop_is_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work, "LOOKS_EVERY_S", 0.05)
    two = StateGraph(State).add_node("one", remark).add_node("two", remark)
    inner: Any = two.add_edge(START, "one").add_edge(START, "two").compile()

    async def node(state: State) -> State:
        found: State = inner.invoke(state)
        return found

    graph = StateGraph(State).add_node("node", node).add_edge(START, "node").compile()
    with pytest.raises(SessionError, match="is blocked"):
        await planned(graph, ScriptedEngine()).ainvoke(INPUTS[0])


async def test_concurrent_runs_share_one_memo(tmp_path: Path) -> None:
    engine = ScriptedEngine(latency_s=0.01)
    app = planned(asks(), engine, memo=tmp_path / "memo")
    await asyncio.gather(*(app.ainvoke({"text": str(number)}) for number in range(3)))
    assert engine.num_requests == 3
    await app.ainvoke({"text": "1"})
    assert engine.num_requests == 3


def test_only_what_can_be_run_is_planned() -> None:
    with pytest.raises(TypeError, match="compile"):
        planned(StateGraph(State), ScriptedEngine())


async def test_it_goes_on_in_a_chain() -> None:
    expected, _ = await plain(built(), INPUTS)
    chain = planned(built(), ScriptedEngine()) | (lambda state: state["notes"])
    assert await chain.abatch(INPUTS) == [state["notes"] for state in expected]


async def test_of_each_graph_other_things_are_learned() -> None:
    memo, engine = MemoryStore(), ScriptedEngine()
    other = StateGraph(State).add_node("read", read).add_edge(START, "read").compile(name="other")
    for graph, text in (built(), "text"), (other, "other text"):
        rows = [{"text": f"{text} {number}"} for number in range(6)]
        await planned(graph, engine, memo=memo).abatch(rows)
    found = [decode_profile(each) for each in memo.profiles().values()]
    names = [profile.workflow.partition(":")[2] for profile in found if profile is not None]
    assert len(names) == 2
    assert "other(__start__, read)" in names


@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
def test_sync_nodes_leave_threads_to_what_they_wait_for(loops: str) -> None:
    new_loop = pytest.importorskip(loops).new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_eight_sync_nodes_on_two_threads())


async def _eight_sync_nodes_on_two_threads() -> None:
    class Rendering(ScriptedEngine):
        async def render(self, messages: Any, tools: Any = ()) -> Any:
            await asyncio.to_thread(int)  # as vLLM's and a server's start do
            return await super().render(messages, tools)

    @cached_node
    def cached(state: State) -> State:
        return {"notes": [chat.invoke(state["text"]).text]}

    def streamed(state: State) -> State:
        return {"notes": ["".join(str(piece.text) for piece in chat.stream(state["text"]))]}

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2))
    rows = [{"text": str(number)} for number in range(8)]
    for node in cached, streamed:
        engine = Rendering()
        graph: Any = StateGraph(State).add_node("node", node).add_edge(START, "node")
        async with asyncio.timeout(60):
            found = await planned(graph.compile(), engine).abatch(rows)
        assert len({state["notes"][0] for state in found}) == engine.num_requests == 8
