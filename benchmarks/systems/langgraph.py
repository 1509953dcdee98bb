"""LangGraph as its users run it: a compiled `StateGraph`, `abatch` of all rows.

A node per call, an edge per dependency, a chat model per length of answer; no limit on concurrency,
and inputs in their natural order. Over HTTP with `ChatOpenAI`; and in this process with our chat
model, as it is and with the one line that plans it.
"""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, TypedDict

from benchmarks.harness.calls import Call, CallGraph
from benchmarks.harness.server import MODEL_NAME
from benchmarks.harness.system import Batch, GraphSystem, Results
from benchmarks.harness.testbed import Testbed
from helium_agents import MemoryStore, Session
from helium_agents.optimizer.schedule import EverythingOpen


class State(TypedDict):
    """What the nodes of a row share: its calls' texts, and the answers so far by call."""

    calls: tuple[Call, ...]
    answers: Annotated[dict[int, str], operator.or_]


Node = Callable[[State], Awaitable[dict[str, Any]]]


class LangGraph(GraphSystem):
    """A `StateGraph` of the calls of a row."""

    uses_server = True
    requirement = "langchain_openai"

    async def prepare(self, batch: Batch, bed: Testbed) -> None:
        """Compile the graph of the first row, which has the form of all."""
        self._graph = _compiled(batch.graphs[0], partial(_model, bed), partial(_node, bed=bed))

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        """Execute a batch."""
        inputs = [{"calls": graph.calls, "answers": {}} for graph in batch.graphs]
        states = await self._graph.abatch(inputs, {"recursion_limit": 1000})
        return [
            [state["answers"][index] for index in graph.outputs]
            for state, graph in zip(states, batch.graphs, strict=True)
        ]


class OurChatModel(LangGraph):
    """The same graph with `ChatHelium` in its nodes.

    Args:
        name: What it is called in tables.
        is_planned: Whether the graph is `planned`; otherwise nothing is merged or held back.
        max_open: Most rows on the engine at once, of a planned one.
        num_runs: How many runs were made before, which have left a profile and nothing else.
    """

    uses_server = False
    requirement = "langgraph"

    def __init__(
        self, name: str, *, is_planned: bool, max_open: int | None = None, num_runs: int = 0
    ) -> None:
        super().__init__(name)
        self._max_open = max_open
        self._num_runs = num_runs
        self._is_planned = is_planned

    async def prepare(self, batch: Batch, bed: Testbed) -> None:
        """Compile the graph of the first row, which has the form of all; make the runs before."""
        store = MemoryStore()
        for _ in range(self._num_runs):
            self._compile(batch, bed, store)
            await self.run(batch, bed)
            profiles, store = store.profiles(), MemoryStore()
            for key, profile in profiles.items():
                store.put_profile(key, profile)
        self._compile(batch, bed, store)

    def _compile(self, batch: Batch, bed: Testbed, store: MemoryStore) -> None:
        from helium_agents.integrations.langgraph import ChatHelium, planned

        graph = _compiled(batch.graphs[0], lambda length: ChatHelium(max_tokens=length), _our_node)
        session = Session(bed.engine, memo=store, max_open=self._max_open)
        if not self._is_planned:
            session = Session(bed.engine, rules=(), share=False, schedule=EverythingOpen())
        self._graph, self._session = planned(graph, session), session

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        """Execute a batch."""
        async with self._session:
            return await super().run(batch, bed)


def _compiled(
    graph: CallGraph, model: Callable[[int], Any], node: Callable[[int, Any], Node]
) -> Any:
    from langgraph.graph import END, START, StateGraph

    builder: Any = StateGraph(State)
    models = {length: model(length) for length in {call.max_tokens for call in graph.calls}}
    needed = {source for call in graph.calls for source in call.inputs}
    for index, call in enumerate(graph.calls):
        builder.add_node(str(index), node(index, models[call.max_tokens]))
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


def _node(index: int, model: Any, bed: Testbed) -> Node:
    async def node(state: State) -> dict[str, Any]:
        log = bed.server.log
        start_s = log.now()
        conversation = state["calls"][index].conversation(state["answers"])
        reply = await model.ainvoke([tuple(message[:2]) for message in conversation])
        usage = reply.usage_metadata
        cached = usage["input_token_details"].get("cache_read", 0)
        log.add(start_s, usage["input_tokens"], cached, usage["output_tokens"])
        return {"answers": {index: reply.content}}

    return node


def _our_node(index: int, model: Any) -> Node:
    async def node(state: State) -> dict[str, Any]:
        conversation = state["calls"][index].conversation(state["answers"])
        reply = await model.ainvoke([tuple(message[:2]) for message in conversation])
        return {"answers": {index: reply.content}}

    return node


SYSTEMS = (
    LangGraph("langgraph"),
    OurChatModel("langgraph-chat", is_planned=False),
    OurChatModel("langgraph-planned", is_planned=True),
    OurChatModel("langgraph-planned-again", is_planned=True, num_runs=1),
    OurChatModel("langgraph-planned-10-open", is_planned=True, max_open=10),
)
