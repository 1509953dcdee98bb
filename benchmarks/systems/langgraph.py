"""LangGraph over HTTP, as its users run it: a compiled `StateGraph`, `abatch` of all rows.

A node per call, an edge per dependency, a `ChatOpenAI` per length of answer; no limit on
concurrency, and inputs in their natural order.
"""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict

from benchmarks.harness.calls import Call, CallGraph
from benchmarks.harness.server import MODEL_NAME
from benchmarks.harness.system import Batch, GraphSystem, Results
from benchmarks.harness.testbed import Testbed


class State(TypedDict):
    """What the nodes of a row share: its calls' texts, and the answers so far by call."""

    calls: tuple[Call, ...]
    answers: Annotated[dict[int, str], operator.or_]


class LangGraph(GraphSystem):
    """A `StateGraph` of the calls of a row."""

    uses_server = True
    requirement = "langchain_openai"

    async def prepare(self, batch: Batch, bed: Testbed) -> None:
        """Compile the graph of the first row, which has the form of all."""
        self._graph = _compiled(batch.graphs[0], bed)

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        """Execute a batch."""
        inputs = [{"calls": graph.calls, "answers": {}} for graph in batch.graphs]
        states = await self._graph.abatch(inputs, {"recursion_limit": 1000})
        return [
            [state["answers"][index] for index in graph.outputs]
            for state, graph in zip(states, batch.graphs, strict=True)
        ]


def _compiled(graph: CallGraph, bed: Testbed) -> Any:
    from langgraph.graph import END, START, StateGraph

    builder: Any = StateGraph(State)
    models = {length: _model(bed, length) for length in {call.max_tokens for call in graph.calls}}
    needed = {source for call in graph.calls for source in call.inputs}
    for index, call in enumerate(graph.calls):
        builder.add_node(str(index), _node(index, models[call.max_tokens], bed))
        builder.add_edge([str(source) for source in call.inputs] or START, str(index))
        if index not in needed:
            builder.add_edge(str(index), END)
    return builder.compile()


def _model(bed: Testbed, max_tokens: int) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=MODEL_NAME,
        base_url=bed.server.url,
        api_key="none",
        temperature=0,
        max_tokens=max_tokens,
        timeout=600,
    )


def _node(index: int, model: Any, bed: Testbed) -> Callable[[State], Awaitable[dict[str, Any]]]:
    async def node(state: State) -> dict[str, Any]:
        log = bed.server.log
        start_s = log.now()
        conversation = state["calls"][index].conversation(state["answers"])
        reply = await model.ainvoke([tuple(message) for message in conversation])
        usage = reply.usage_metadata
        cached = usage["input_token_details"].get("cache_read", 0)
        log.add(start_s, usage["input_tokens"], cached, usage["output_tokens"])
        return {"answers": {index: reply.content}}

    return node


SYSTEMS = (LangGraph("langgraph"),)
