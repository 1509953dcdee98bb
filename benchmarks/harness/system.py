"""What a system is: something that executes a batch on an engine, in its own way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.harness.calls import Call, CallGraph
from benchmarks.harness.measured_engine import RequestLog
from benchmarks.harness.testbed import Testbed
from benchmarks.harness.workload import Inputs, Workload
from helium_agents.engines.engine import ChatMessage

Results = list[list[str]]
"""For each row, in the order of the rows, the texts that the workflow returns."""

Complete = Callable[[Sequence[ChatMessage], int], Awaitable[str]]
"""Answers a conversation with at most so many tokens."""

LIMITS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64)
"""Numbers of open rows that a sweep tries, about a factor 1.4 apart."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of a workload.

    Args:
        workload: Whose.
        rows: As the workload made them, in their natural order.
        graphs: The calls of each row.
        earlier: Batches of earlier days, which fill what a system remembers.
        arrivals_s: When each row arrives, in seconds from the start; empty: all at once.
        inputs: What the rows were made from.
    """

    workload: Workload
    rows: Sequence[Any]
    graphs: Sequence[CallGraph]
    earlier: tuple[Batch, ...] = ()
    arrivals_s: Sequence[float] = ()
    inputs: Inputs = field(default_factory=lambda: Inputs(0))

    @property
    def has_pauses(self) -> bool:
        """Whether rows wait for tools."""
        return any(call.pause_s for graph in self.graphs for call in graph.calls)

    @property
    def num_calls(self) -> int:
        """Model calls of all rows."""
        return sum(len(graph.calls) for graph in self.graphs)


def limits_of(batch: Batch) -> list[int]:
    """Numbers of open rows that a sweep tries on a batch.

    Rows that wait for tools take long one after another, so few of them are not tried.
    """
    least = len(batch.graphs) / 6 if batch.has_pauses else 1
    return [limit for limit in LIMITS if least <= limit < len(batch.graphs)]


class System(Protocol):
    """Executes batches."""

    @property
    def name(self) -> str:
        """What it is called in tables and on the command line."""
        ...

    @property
    def uses_server(self) -> bool:
        """Whether it asks the HTTP server; else it asks the engine in this process."""
        ...

    @property
    def requirement(self) -> str | None:
        """The module that must be installed, or `None`."""
        ...

    @property
    def runs_tools(self) -> bool:
        """Whether it runs rows that wait for tools, or that arrive one after another."""
        ...

    @property
    def same_as(self) -> str | None:
        """A system that does exactly the same; where that one is measured, this is not again."""
        ...

    @property
    def planning_s(self) -> float:
        """Seconds that its last run spent on planning, as far as it says so."""
        ...

    @property
    def choice(self) -> str:
        """The schedule that it chose in its last run, in words; empty where it has no choice."""
        ...

    def candidates(self, batch: Batch) -> Sequence[System]:
        """The settings of itself that are tried first, of which the fastest is then measured.

        Empty for a system that has no setting to tune.
        """
        ...

    async def prepare(self, batch: Batch, bed: Testbed) -> None:
        """Do what is not measured: compile a graph, fill a memory with earlier days."""
        ...

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        """Execute a batch; this is what is measured."""
        ...


class GraphSystem:
    """What systems have in common that execute the call graphs; a `System` but for `run`."""

    uses_server = False
    requirement: str | None = None
    runs_tools = False
    same_as: str | None = None
    planning_s = 0.0
    choice = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def candidates(self, batch: Batch) -> Sequence[System]:
        """Nothing to tune."""
        return ()

    async def prepare(self, batch: Batch, bed: Testbed) -> None:
        """Nothing to prepare."""


async def run_rows(
    batch: Batch, log: RequestLog, run_row: Callable[[CallGraph], Awaitable[list[str]]]
) -> Results:
    """Run each row as it arrives, and note when it is done."""

    async def row(number: int, graph: CallGraph) -> list[str]:
        if batch.arrivals_s:
            await asyncio.sleep(batch.arrivals_s[number])
        texts = await run_row(graph)
        log.end_row(number)
        return texts

    return await asyncio.gather(*(row(*each) for each in enumerate(batch.graphs)))


async def run_graph(graph: CallGraph, complete: Complete) -> list[str]:
    """Make the calls of a row, each as soon as those that it needs are answered."""
    loop = asyncio.get_running_loop()
    answers: list[asyncio.Task[str]] = []

    async def answer(call: Call) -> str:
        texts = {source: await answers[source] for source in call.inputs}
        if call.pause_s:
            await asyncio.sleep(call.pause_s)
        return await complete(call.conversation(texts), call.max_tokens)

    for call in graph.calls:
        answers.append(loop.create_task(answer(call)))
    await asyncio.gather(*answers)
    return [answers[index].result() for index in graph.outputs]
