"""Operator by operator: one step of the workflow for all rows, then the next step."""

from __future__ import annotations

import asyncio

from benchmarks.harness.system import Batch, GraphSystem, Results
from benchmarks.harness.testbed import Testbed


class OpWise(GraphSystem):
    """The n-th call of all rows is made before the next call of any."""

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        """Execute a batch."""
        texts: list[list[str]] = [[] for _ in batch.graphs]

        async def step(row: int, index: int) -> str:
            call = batch.graphs[row].calls[index]
            return await bed.engine.ask(call.conversation(texts[row]), call.max_tokens)

        for index in range(max(len(graph.calls) for graph in batch.graphs)):
            rows = [row for row, graph in enumerate(batch.graphs) if index < len(graph.calls)]
            answers = await asyncio.gather(*(step(row, index) for row in rows))
            for row, answer in zip(rows, answers, strict=True):
                texts[row].append(answer)
        return [
            [texts[row][index] for index in graph.outputs] for row, graph in enumerate(batch.graphs)
        ]


SYSTEMS = (OpWise("opwise"),)
