"""A LangGraph app as its authors write it: a fan-out, a tool, a loop; and one line that plans it.

    python -m agents_examples.langgraph_app            # as it is
    python -m agents_examples.langgraph_app --planned  # the line

It needs ``helium_agents[langgraph]``, and runs on a scripted engine, which counts what it is asked.
"""

from __future__ import annotations

import asyncio
import operator
import sys
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from agents_examples.rows import Document, read_rows
from helium_agents import Session, ToolCall
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.integrations.langgraph import ChatHelium, planned

READERS = ("an accountant", "a journalist", "an accountant")
MAX_ROUNDS = 2


class State(TypedDict, total=False):
    """What the nodes share."""

    text: str
    role: str
    notes: Annotated[list[str], operator.add]
    messages: list[AnyMessage]
    summary: str
    num_rounds: int


def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


chat = ChatHelium(max_tokens=64)
counting = chat.bind_tools([count_words])


def assign(state: State) -> list[Send]:
    """Send the document to every reader."""
    return [Send("read", {"text": state["text"], "role": role}) for role in READERS]


async def read(state: State) -> State:
    """What one reader makes of the document."""
    reply = await chat.ainvoke(f"As {state['role']}, what is in this?\n{state['text']}")
    return {"notes": [str(reply.text)]}


async def summarise(state: State) -> State:
    """Sum up the notes, or what was summed up before, and count the words."""
    text = state.get("summary") or "\n".join(state["notes"])
    asked = HumanMessage(f"Sum this up, and count its words:\n{text}")
    said = await counting.ainvoke([asked])
    results = [
        ToolMessage(str(count_words(**call["args"])), tool_call_id=call["id"])
        for call in said.tool_calls
    ]
    reply = await counting.ainvoke([asked, said, *results])
    return {"summary": str(reply.text), "num_rounds": state.get("num_rounds", 0) + 1}


def is_done(state: State) -> str:
    """Whether the summary has been gone over often enough."""
    return END if state["num_rounds"] == MAX_ROUNDS else "summarise"


def build() -> Any:
    """The graph."""
    graph = StateGraph(State).add_node("read", read).add_node("summarise", summarise)
    graph.add_conditional_edges(START, assign, ["read"]).add_edge("read", "summarise")
    return graph.add_conditional_edges("summarise", is_done).compile()


def script(request: Request) -> str | ScriptedReply:
    """Stands for a model that knows how to call tools."""
    last = request.messages[-1]
    if request.tools and last.role != "tool":
        return ScriptedReply(tool_calls=[ToolCall("count_words", {"text": last.content})])
    return f"{len(request.messages)} messages, the last: {last.content[-40:]}"


async def main(*, is_planned: bool) -> tuple[list[str], int]:
    """The summaries of the bundled documents, and how many requests they took."""
    engine = ScriptedEngine(script)
    documents = read_rows(Document, "documents.jsonl")
    inputs: list[State] = [{"text": document.as_text()} for document in documents]
    graph = build()
    if is_planned:
        states = await planned(graph, engine).abatch(inputs)  # the line
    else:
        async with Session(engine, rules=(), share=False):
            states = await graph.abatch(inputs)
    return [state["summary"] for state in states], engine.num_requests


if __name__ == "__main__":
    summaries, num_requests = asyncio.run(main(is_planned="--planned" in sys.argv))
    print(f"{len(summaries)} summaries, {num_requests} requests")
