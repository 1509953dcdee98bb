"""helium_agents where nothing is declared: each call is awaited before what needs it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.calls import CallGraph
from benchmarks.harness.system import Batch, Results, run_graph
from benchmarks.harness.testbed import Testbed
from benchmarks.systems.ours import Ours
from helium_agents import Message, llm
from helium_agents.engines.engine import ChatMessage
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.memory import MemoryStore


class PlainOurs(Ours):
    """A plain program in a session.

    Args:
        name: What it is called in tables.
        num_runs: How many runs were made before, which have left a profile and nothing else.
    """

    def __init__(self, name: str, *, num_runs: int = 0) -> None:
        super().__init__(name)
        self._num_runs = num_runs

    async def prepare(self, batch: Batch, bed: Testbed) -> None:
        """Put the memo into the state in which the earlier days and runs left it."""
        profiles: dict[bytes, bytes] = {}
        for _ in range(self._num_runs):
            await super().prepare(batch, bed)
            self._profiles(profiles)
            await self._run(batch, bed, self._memo_now)
            profiles = self.taught(self._profiles({}))
        await super().prepare(batch, bed)
        self._profiles(profiles)

    def taught(self, profiles: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """What is known in the run that is measured, of what the runs before have learned."""
        return profiles

    def _profiles(self, more: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """The profiles in the memo, and others that are put there."""
        assert self._memo_now is not None, "not prepared"
        memo = self._memo_now
        store = memo if isinstance(memo, MemoryStore) else LmdbStore(memo)
        try:
            for key, profile in more.items():
                store.put_profile(key, profile)
            return store.profiles()
        finally:
            if store is not memo:
                store.close()

    async def _run(self, batch: Batch, bed: Testbed, memo: Path | MemoryStore | None) -> Results:
        workload = replace(batch.workload, workflow=step_by_step)
        return await super()._run(replace(batch, workload=workload, rows=batch.graphs), bed, memo)


async def step_by_step(graph: CallGraph) -> list[str]:
    """Make the calls of a row, each as soon as those that it needs are answered."""
    return await run_graph(graph, _ask)


async def _ask(messages: Sequence[ChatMessage], max_tokens: int) -> str:
    asked = (Message(each.role, each.content) for each in messages)
    return (await llm(*asked, max_tokens=max_tokens)).text


SYSTEMS = (PlainOurs("ours-plain"), PlainOurs("ours-plain-again", num_runs=1))
