"""What users of LangGraph write, for type checkers; see `public_api`."""
# pyright: basic
# LangGraph's own types are not known to the last

from __future__ import annotations

from operator import add
from typing import Annotated, Required, TypedDict, assert_type

from langchain_core.messages import AIMessage
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy
from pydantic import BaseModel

from helium_agents import VLLM, Session, operator
from helium_agents.integrations.langgraph import (
    ChatHelium,
    HeliumCache,
    HeliumModelCache,
    PlannedGraph,
    cached_node,
    planned,
)


class State(TypedDict, total=False):
    text: Required[str]
    notes: Annotated[list[str], add]


class Verdict(BaseModel):
    score: int


def look_up(query: str) -> str:
    """Look something up."""
    return query


chat = ChatHelium(engine=VLLM("Qwen/Qwen3-8B"), max_tokens=64, session_options={"memo": "memo"})


@cached_node
async def note(state: State) -> State:
    reply = await chat.ainvoke(state["text"])
    assert_type(reply, AIMessage)
    return {**state, "notes": [str(reply.text)]}


@cached_node(version="1", name="shouted")
def shout(state: State) -> State:
    return {"text": state["text"].upper()}


@operator(pure=True)
async def judge(state: State) -> State:
    verdict = await chat.with_structured_output(Verdict).ainvoke(state["text"])
    called = await chat.bind_tools([look_up], tool_choice="any").ainvoke(state["text"])
    return {**state, "notes": [f"{verdict} {called.tool_calls}"]}


@operator
async def length(text: str) -> int:
    return len(text)


@entrypoint()
async def flow(text: str) -> int:
    return await task(length)(text)


def built() -> PlannedGraph:
    builder = StateGraph(State).add_node("note", note).add_node("judge", judge)
    builder.add_node("shout", shout, cache_policy=CachePolicy(ttl=60))
    builder.add_edge(START, "note").add_edge("note", "shout").add_edge("shout", "judge")
    return planned(builder.compile(cache=HeliumCache("memo")), VLLM("random"), memo="memo")


async def main() -> None:
    app = built()
    print(await app.ainvoke({"text": "a"}), await app.abatch([{"text": "a"}]))
    async for chunk in app.astream({"text": "a"}, stream_mode="updates"):
        print(chunk)
    print(app.invoke({"text": "a"}), app.batch([{"text": "a"}]), list(app.stream({"text": "a"})))
    async with Session(VLLM("random"), max_open=8) as session:
        print(await planned(flow, session).ainvoke("a"))
        print(await operator(app.ainvoke, name="app")({"text": "a"}))
    chat.close()
    HeliumModelCache("memo").clear()
