"""A lease on the KV cache while a tool runs, of Continuum (2025, arXiv 2511.02230), in our runtime.

A session that waits for its tool keeps its cache for as long as computing it anew would take; then
others may have it. Sessions go first come, first served, as far as what is running or leased leaves
room for their prompts.
"""

from __future__ import annotations

from benchmarks.systems.ours import Ours
from helium_agents.optimizer.schedule import Asked, ItemUse, Queue, has_slot, item_of


class Lease:
    """Keeps what a session has computed while that is cheaper than computing it again."""

    def keeps_prefixes(self, queue: Queue) -> bool:
        """No."""
        return False

    def choose(self, queue: Queue) -> Asked | None:
        """The oldest session whose cache is there or whose prompt fits; else the oldest waits."""
        if not has_slot(queue):
            return None
        for asked in queue.ready:
            if asked.item is None:  # of no session: nothing is kept for it
                return asked
        by_age = sorted(queue.ready, key=item_of)
        if queue.room is None or not queue.running:
            return by_age[0]
        for asked in by_age:
            use = queue.items.get(item_of(asked))
            if use is not None and self._is_kept(use, queue):
                return asked
        held = sum(
            use.tokens - queue.shared_tokens
            for use in queue.items.values()
            if self._is_kept(use, queue)
        )
        first = by_age[0]
        need = len(first.prompt_token_ids) + first.max_tokens - queue.shared_tokens
        return first if held + need <= queue.room.kv_tokens - queue.shared_tokens else None

    def look_again_s(self, queue: Queue) -> float | None:
        """When the next lease ends."""
        ends = [
            use.paused_s + _lease_s(use, queue)
            for use in queue.items.values()
            if use.paused_s is not None and self._is_kept(use, queue)
        ]
        return min(ends, default=None)

    def _is_kept(self, use: ItemUse, queue: Queue) -> bool:
        return use.paused_s is None or queue.now_s < use.paused_s + _lease_s(use, queue)


def _lease_s(use: ItemUse, queue: Queue) -> float:
    """What computing a session's tokens again would take; nothing before that is known."""
    return queue.prefill_seconds(use.tokens, 0) or 0.0


SYSTEMS = (Ours("lease", schedule=Lease),)
