"""Rows one after another, and their calls one after another: a loop."""

from __future__ import annotations

from benchmarks.harness.system import Batch, GraphSystem, Results
from benchmarks.harness.testbed import Testbed


class QueryWise(GraphSystem):
    """One open call at any time."""

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        """Execute a batch."""
        results = []
        for graph in batch.graphs:
            texts: list[str] = []
            for call in graph.calls:
                texts.append(await bed.engine.ask(call.conversation(texts), call.max_tokens))
            results.append([texts[index] for index in graph.outputs])
        return results


SYSTEMS = (QueryWise("querywise"),)
