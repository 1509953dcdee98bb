"""Nodes of graphs as calls of operators: names, positions, and draws by these."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph", reason="pip install 'helium_agents[langgraph]'")

from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy, Send

from helium_agents import MemoryStore, Session, llm, user
from helium_agents import operator as op
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.graph.trace import entered_frame
from helium_agents.integrations.langgraph import ChatHelium, planned
from helium_agents.memo.run_log import RunLog
from helium_agents.runtime.learning.profiles import decode_profile
from helium_agents.telemetry.events import CallSettled, Event

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class State(TypedDict, total=False):
    text: str
    notes: Annotated[list[str], operator.add]


chat = ChatHelium()


@op
async def expert(text: str) -> str:
    return (await llm(user(f"expert on {text}"))).text


async def read(state: State) -> State:
    return {"notes": [(await chat.ainvoke(f"read {state['text']}")).text]}


async def consult(state: State) -> State:
    return {"notes": [await expert(state["text"])]}


def remark(state: State) -> State:  # in a thread
    return {"notes": [chat.invoke(f"remark on {state['text']}").text]}


def built() -> Any:
    inner = StateGraph(State).add_node("consult", consult).add_edge(START, "consult").compile()
    graph = StateGraph(State)
    graph.add_node("read", read).add_node("remark", remark).add_node("team", inner)
    graph.add_edge(START, "read").add_edge("remark", "team")
    graph.add_conditional_edges("read", lambda _: [Send("remark", {"text": "x"})] * 2)
    return graph.compile()


NAMES = ["langgraph:read", "langgraph:remark", "langgraph:remark", "expert"]


def callers(events: list[Event]) -> list[str]:
    names = [each.caller for each in events if isinstance(each, CallSettled)]
    return [name.removeprefix(f"{__name__}:") for name in names]


@pytest.mark.parametrize("way", ["ainvoke", "abatch", "astream", "astream_events"])
async def test_calls_have_the_names_of_their_nodes(way: str) -> None:
    events: list[Event] = []
    async with Session(ScriptedEngine(), observers=[events.append], record=True) as session:
        app, before = planned(built(), session), entered_frame()
        if way == "abatch":
            await app.abatch([{"text": "a"}])
        elif way == "ainvoke":
            await app.ainvoke({"text": "a"})
        else:
            options = {"version": "v2"} if way == "astream_events" else {}
            async for _ in getattr(app, way)({"text": "a"}, **options):
                pass
        assert entered_frame() is before
        lines = session.explain().splitlines()
    assert callers(events) == NAMES
    tree = [line.split(" max_tokens")[0] for line in lines[1:]]
    assert tree == [
        "#1 read", "  #2 llm", "#3 remark", "  #4 llm", "#5 remark", "  #6 llm",
        "#7 team", "  #8 team.consult", "    #9 expert", "      #10 llm",
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["ainvoke", "abatch", "messages", "astream_events"])
async def test_of_a_graph_that_is_not_planned_the_models_calls_have(way: str) -> None:
    events: list[Event] = []
    async with Session(ScriptedEngine(), observers=[events.append], record=True) as session:
        graph, before = built(), entered_frame()
        if way == "abatch":
            await graph.abatch([{"text": "a"}])
        elif way == "ainvoke":
            await graph.ainvoke({"text": "a"})
        else:
            options = {"version": "v2"} if way == "astream_events" else {"stream_mode": way}
            async for _ in getattr(graph, way, graph.astream)({"text": "a"}, **options):
                pass
        assert entered_frame() is before
        lines = session.explain().splitlines()
    assert callers(events) == NAMES
    tree = [line.split(" max_tokens")[0] for line in lines[1:]]
    assert tree == [
        "#1 read", "  #2 llm", "#3 remark", "  #4 llm", "#5 remark", "  #6 llm",
        "#7 expert", "  #8 llm",
    ]  # fmt: skip


async def test_in_a_session_of_the_models_own_too() -> None:
    events: list[Event] = []
    model = ChatHelium(engine=ScriptedEngine(), session_options={"observers": [events.append]})

    async def outer(state: State) -> State:
        found: State = await inner.ainvoke(state)
        return found

    async def judge(state: State) -> State:
        return {"notes": [str((await model.ainvoke("say")).text)]}

    def judge_in_a_thread(state: State) -> State:
        return {"notes": [str(model.invoke("say").text)]}

    inner: Any = StateGraph(State).add_node("judge", judge).add_edge(START, "judge")
    inner = inner.add_node("thread", judge_in_a_thread).add_edge("judge", "thread").compile()
    await StateGraph(State).add_node("team", outer).add_edge(START, "team").compile().ainvoke({})
    assert callers(events) == ["langgraph:team.judge", "langgraph:team.thread"]
    await asyncio.to_thread(model.close)


@pytest.mark.parametrize("way", ["invoke", "batch", "stream"])
async def test_without_await_too(way: str) -> None:
    graph = StateGraph(State).add_node("remark", remark).add_node("again", remark)
    graph.add_edge(START, "remark").add_edge(START, "again")
    events: list[Event] = []
    async with Session(ScriptedEngine(), observers=[events.append]) as session:
        run = getattr(planned(graph.compile(), session), way)
        inputs: Any = [{"text": "a"}] if way == "batch" else {"text": "a"}
        await asyncio.to_thread(lambda: list(run(inputs)))
    assert sorted(callers(events)) == ["langgraph:again", "langgraph:remark"]


async def test_tasks_of_an_entrypoint() -> None:
    @task
    async def judge(text: str) -> str:
        return str((await chat.ainvoke(text)).text)

    @entrypoint()
    async def flow(text: str) -> list[str]:
        return list(await asyncio.gather(judge(text), judge(text)))

    events: list[Event] = []
    async with Session(ScriptedEngine(), observers=[events.append]) as session:
        await planned(flow, session).ainvoke("a")
    assert callers(events) == ["langgraph:flow.judge"] * 2


@pytest.mark.parametrize("is_planned", [True, False])
async def test_what_waits_says_in_which_node(is_planned: bool) -> None:
    engine = ScriptedEngine(latency_s=3600)
    async with Session(engine) as session:
        app = planned(built(), session) if is_planned else built()
        config: Any = {"configurable": {"thread_id": "t"}}
        waiting = asyncio.create_task(app.ainvoke({"text": "a"}, config))
        while not engine.num_open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert "read(step=1, thread='t'): its body runs" in session.waiting()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert "read(" not in session.waiting()


@pytest.mark.parametrize("is_planned", [True, False])
async def test_a_draw_is_known_by_its_position(tmp_path: Path, is_planned: bool) -> None:
    """Of two nodes with an equal sample the other asks first when the run is resumed."""
    sampling = ChatHelium(temperature=1.0)
    delay_s: Iterator[float]

    async def sample(state: State) -> State:
        await asyncio.sleep(next(delay_s))
        return {"notes": [str((await sampling.ainvoke("say")).text)]}

    graph: Any = StateGraph(State).add_node("sample", sample)
    graph = graph.add_conditional_edges(START, lambda _: [Send("sample", {})] * 2).compile()
    engine, found = ScriptedEngine(), []
    for delays in (0.0, 0.05), (0.05, 0.0):
        delay_s = iter(delays)
        with RunLog(tmp_path / "run") as log:
            async with Session(engine, run_log=log) as session:
                (state,) = await (planned(graph, session) if is_planned else graph).abatch([{}])
        found.append(state["notes"])
    assert found[0] == found[1] and len({*found[0]}) == 2
    assert engine.num_requests == 2


@pytest.mark.parametrize("is_planned", [True, False])
async def test_a_node_that_is_tried_again_draws_anew(is_planned: bool) -> None:
    sampling, tries = ChatHelium(temperature=1.0), count()

    async def sample(state: State) -> State:
        said = str((await sampling.ainvoke("say")).text)
        if next(tries) == 0:
            raise ConnectionError
        return {"notes": [said]}

    policy = RetryPolicy(initial_interval=0.0, jitter=False)
    graph: Any = StateGraph(State).add_node("sample", sample, retry_policy=policy)
    engine, graph = ScriptedEngine(), graph.add_edge(START, "sample").compile()
    async with Session(engine) as session:
        await (planned(graph, session) if is_planned else graph).ainvoke({})
    assert engine.num_requests == 2


@pytest.mark.parametrize("is_planned", [True, False])
async def test_what_is_learned_is_told_apart_by_node(is_planned: bool) -> None:
    memo, graph = MemoryStore(), built()
    rows = [{"text": f"text {number}"} for number in range(6)]
    async with Session(ScriptedEngine(), memo=memo) as session:
        if is_planned:
            await planned(graph, session).abatch(rows)
        else:
            async with session.map(graph.ainvoke, rows) as found:
                assert len([each async for each in found]) == 6
    (data,) = memo.profiles().values()
    profile = decode_profile(data)
    assert profile is not None
    assert {*profile.sites} == {"read", "remark", "expert"}
