"""Longest shared prefix first: the policy of SGLang's scheduler (Zheng et al., 2024, section 3).

Of the calls that are ready, the one goes first whose prompt shares the longest prefix with what
was sent before; as many are open as the engine computes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from benchmarks.harness.settings import BLOCK_TOKENS
from benchmarks.harness.system import Batch, GraphSystem, Results
from benchmarks.harness.testbed import Testbed
from helium_agents.engines.engine import ChatMessage


class Lspf(GraphSystem):
    """Sends ready calls by the length of the prefix that was sent before."""

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        """Execute a batch."""
        run = _Run(batch, bed)
        await run.finish()
        return [
            [run.texts[row][index] for index in graph.outputs]
            for row, graph in enumerate(batch.graphs)
        ]


@dataclass
class _Ready:
    """A call that can be made, its prompt, and how many of its blocks were sent before."""

    row: int
    index: int
    messages: Sequence[ChatMessage]
    token_ids: Sequence[int]
    blocks: list[int]
    num_shared: int = 0


class _Run:
    def __init__(self, batch: Batch, bed: Testbed) -> None:
        self.texts: list[dict[int, str]] = [{} for _ in batch.graphs]
        self._graphs = batch.graphs
        self._bed = bed
        self._slots = bed.settings.max_requests
        self._ready: list[_Ready] = []
        self._added: set[tuple[int, int]] = set()
        self._sent: set[int] = set()
        self._open: set[asyncio.Task[_Ready]] = set()

    async def finish(self) -> None:
        for row, graph in enumerate(self._graphs):
            for index, call in enumerate(graph.calls):
                if not call.inputs:
                    await self._add(row, index)
        while self._ready or self._open:
            self._send()
            done, self._open = await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await self._follow(task.result())

    async def _add(self, row: int, index: int) -> None:
        self._added.add((row, index))
        messages = self._graphs[row].calls[index].conversation(self.texts[row])
        token_ids = await self._bed.engine.render(messages)
        self._ready.append(_Ready(row, index, messages, token_ids, _blocks(token_ids)))

    def _send(self) -> None:
        while self._ready and len(self._open) < self._slots:
            for ready in self._ready:  # what was sent only grows, so go on where it ended
                while (
                    ready.num_shared < len(ready.blocks)
                    and ready.blocks[ready.num_shared] in self._sent
                ):
                    ready.num_shared += 1
            best = max(self._ready, key=lambda ready: ready.num_shared)
            self._ready.remove(best)
            self._sent.update(best.blocks)
            self._open.add(asyncio.ensure_future(self._answer(best)))

    async def _answer(self, ready: _Ready) -> _Ready:
        call = self._graphs[ready.row].calls[ready.index]
        text = await self._bed.engine.ask_rendered(ready.messages, ready.token_ids, call.max_tokens)
        self.texts[ready.row][ready.index] = text
        return ready

    async def _follow(self, answered: _Ready) -> None:
        texts = self.texts[answered.row]
        for index, call in enumerate(self._graphs[answered.row].calls):
            place = answered.row, index
            if place not in self._added and all(source in texts for source in call.inputs):
                await self._add(*place)


def _blocks(token_ids: Sequence[int]) -> list[int]:
    """Digests of the prompt's prefixes that are whole blocks."""
    digest = xxhash.xxh3_64()
    blocks = []
    for start in range(0, len(token_ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        digest.update(repr(token_ids[start : start + BLOCK_TOKENS]).encode())
        blocks.append(digest.intdigest())
    return blocks


SYSTEMS = (Lspf("lspf"),)
