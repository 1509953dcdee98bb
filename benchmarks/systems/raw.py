"""Plain asyncio over the engine in this process: all rows at once, or a fixed number of them.

The strictest baselines: no HTTP, no framework, nothing between the program and vLLM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from benchmarks.harness.calls import CallGraph
from benchmarks.harness.system import (
    Batch,
    GraphSystem,
    Results,
    System,
    limits_of,
    run_graph,
    run_rows,
)
from benchmarks.harness.testbed import Testbed


class Raw(GraphSystem):
    """`gather` over all rows, with at most `limit` rows open if one is given."""

    runs_tools = True

    def __init__(self, name: str, limit: int | None = None) -> None:
        super().__init__(name)
        self.limit = limit

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        """Execute a batch."""
        slots = asyncio.Semaphore(self.limit or len(batch.graphs))

        async def row(graph: CallGraph) -> list[str]:
            async with slots:
                return await run_graph(graph, bed.engine.ask)

        return await run_rows(batch, bed.engine.log, row)


class TunedRaw(Raw):
    """The best fixed limit that a sweep finds; what a user gets who measures his own workload."""

    def candidates(self, batch: Batch) -> Sequence[System]:
        """Numbers of open rows."""
        return [Raw(f"{self.name} ({limit} rows open)", limit) for limit in limits_of(batch)] + [
            _Unlimited(f"{self.name} (all rows open)")
        ]


class _Unlimited(Raw):
    """What a sweep finds where no limit helps."""

    same_as = "raw"


SYSTEMS = (Raw("raw"), TunedRaw("raw-tuned"))
