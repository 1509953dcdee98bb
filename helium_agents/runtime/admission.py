"""Admission: open as many items as their estimated working sets fit into the KV cache.

An item's working set is the KV blocks that its calls touch: they come back when a later call of
the item repeats an earlier prefix. Opening more items than fit makes them evict one another;
opening fewer starves the batch. Blocks are identified as in vLLM, by a chained hash of their
tokens, so what items share (a system prompt) is counted once.

The estimate for an item is the mean number of blocks that finished items brought in. Until one
has finished, it is an eighth of the capacity, or the most that any open item has brought in.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from xxhash import xxh3_64_intdigest

from helium_agents.engines.engine import Capacity

_NO_BLOCKS: frozenset[int] = frozenset()

_LOOK_AGAIN_S = 0.05
"""How often an item that does not fit looks whether anything is under way at all."""


class WorkingSet:
    """The blocks that one open item has touched.

    Args:
        group: The map that the item belongs to.
    """

    __slots__ = ("blocks", "group", "num_fresh")

    def __init__(self, group: object = None) -> None:
        self.group = group
        self.blocks: AbstractSet[int] = _NO_BLOCKS
        self.num_fresh = 0


class Admission:
    """Decides when the next item of a top-level map may open.

    Calls of an open item, nested maps included, are never held back: they could be what another
    open item waits for. For the same reason a map of which nothing is open may always open one
    item: the items of another map may wait for it. And while no call at all is under way, items are
    opened one after another: the open ones may be waiting for one that is not. An item larger than
    everything runs alone.

    Args:
        capacity: Asks for the engine's capacity: `None` while it is not started, or no limit.
        is_started: Asks whether the engine is started.
        is_idle: Asks whether no call is under way in the session.
        max_open: Most items open at once.
        max_open_before_start: Most items open while it is not known what the engine holds.
    """

    def __init__(
        self,
        capacity: Callable[[], Capacity | None],
        is_started: Callable[[], bool],
        is_idle: Callable[[], bool] = lambda: False,
        *,
        max_open: int = 256,
        max_open_before_start: int = 8,
    ) -> None:
        self._capacity = capacity
        self._is_started = is_started
        self._is_idle = is_idle
        self._max_open = max_open
        self._max_open_before_start = max_open_before_start
        self._open: set[WorkingSet] = set()
        self._num_by_block: Counter[int] = Counter()
        self._num_by_group: Counter[object] = Counter()
        self._mean_fresh: float | None = None
        self._waiting: list[asyncio.Future[None]] = []

    async def open(self, working_set: WorkingSet) -> None:
        """Wait until the item fits, and open it."""
        while not self.admit(working_set):
            wake = asyncio.get_running_loop().create_future()
            self._waiting.append(wake)
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await wake
            except TimeoutError:
                if self._is_idle():
                    self._enter(working_set)
                    return

    def admit(self, working_set: WorkingSet) -> bool:
        """Open the item if it fits now."""
        is_admitted = self._fits() or not self._num_by_group[working_set.group]
        if is_admitted:
            self._enter(working_set)
        return is_admitted

    def _enter(self, working_set: WorkingSet) -> None:
        self._open.add(working_set)
        self._num_by_group[working_set.group] += 1

    def touch(self, working_set: WorkingSet, token_ids: Sequence[int]) -> bool:
        """A call of the item holds these tokens in the KV cache; whether that counts."""
        capacity = self._capacity()
        if capacity is None or working_set not in self._open:
            return False
        if not isinstance(working_set.blocks, set):
            working_set.blocks = set()
        for block in block_hashes(token_ids, capacity.block_tokens):
            if block not in working_set.blocks:
                working_set.blocks.add(block)
                self._num_by_block[block] += 1
                working_set.num_fresh += self._num_by_block[block] == 1
        self._wake()
        return True

    def close(self, working_set: WorkingSet) -> None:
        """The item is done. Idempotent."""
        if working_set not in self._open:
            return
        self._open.remove(working_set)
        self._num_by_group[working_set.group] -= 1
        is_last = not self._num_by_group[working_set.group]
        if is_last:
            del self._num_by_group[working_set.group]
        for block in working_set.blocks:
            self._num_by_block[block] -= 1
            if not self._num_by_block[block]:
                del self._num_by_block[block]
        if working_set.blocks:
            mean = self._mean_fresh
            fresh = working_set.num_fresh
            self._mean_fresh = fresh if mean is None else mean + (fresh - mean) / 8
        self._wake(always=is_last)

    def engine_started(self) -> None:
        """The capacity is known now."""
        self._wake()

    def _fits(self) -> bool:
        num_open = len(self._open)
        if num_open == 0:
            return True
        if not self._is_started():
            return num_open < self._max_open_before_start
        capacity = self._capacity()
        if num_open >= self._max_open or capacity is None:
            return num_open < self._max_open
        num_blocks = capacity.kv_tokens // capacity.block_tokens
        expected = self._mean_fresh
        if expected is None:
            expected = max(num_blocks / 8, *(item.num_fresh for item in self._open))
        still_to_come = sum(max(0.0, expected - item.num_fresh) for item in self._open)
        return len(self._num_by_block) + still_to_come + expected <= num_blocks

    def _wake(self, *, always: bool = False) -> None:
        if self._waiting and (always or self._fits()):
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)


def block_hashes(token_ids: Sequence[int], block_tokens: int) -> list[int]:
    """Chained hashes of the full blocks of a token sequence: equal exactly for equal prefixes."""
    data = array("I", token_ids).tobytes()
    step = 4 * block_tokens
    hashes, seed = [], 0
    for start in range(0, len(data) - step + 1, step):
        seed = xxh3_64_intdigest(data[start : start + step], seed)
        hashes.append(seed)
    return hashes
