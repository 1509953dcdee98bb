"""PARK: turns of agent sessions are sent while what the older ones hold fits into the KV cache.

An agent that calls tools comes back with a prompt that begins with its last one. If its KV cache is
there still, a turn costs its new tokens only; if all sessions are open and do not fit, each turn
evicts another session's cache, and everything is computed again and again. So a session that has
begun keeps its place, younger ones wait, and one that is away for longer than its cache is worth
gives its place to others.

How long that is does not depend on its size: computing H tokens again takes p·H seconds, and
holding them for t seconds keeps t·H of the cache's capacity from others, so they are worth keeping
for p·capacity seconds.
"""

from __future__ import annotations

from helium_agents.optimizer.schedule import Asked, Queue, has_slot, item_of


class Park:
    """Sends turns while the sessions that hold a place, older ones first, fit into the KV cache.

    For items that pause for something outside the engine, or whose number of turns nobody knows.
    Where all calls of an item are known when it opens, its batches may be emptier than need be.
    """

    keeps_prefixes = True

    def choose(self, queue: Queue) -> Asked | None:
        """The turn of the oldest waiting session that fits; with nothing under way, the oldest."""
        if not has_slot(queue):
            return None
        for asked in queue.ready_of_open:
            if asked.item is None:  # of no session: nothing is kept for it
                return asked
        next_item = queue.next_item
        by_age = [*queue.ready_of_open, *([] if next_item is None else [next_item])]
        by_age.sort(key=item_of)
        held = self._held(queue)
        if queue.room is None or not queue.running:
            return by_age[0]
        left_tokens = queue.room.kv_tokens - queue.num_engines * queue.shared_tokens
        for asked in by_age:
            item, need = item_of(asked), _need(asked, queue)
            if item not in queue.items:
                return asked if sum(held.values()) + need <= left_tokens else None
            older = sum(tokens for other, tokens in held.items() if other < item)
            if older + need <= left_tokens:
                return asked
        return None

    def look_again_s(self, queue: Queue) -> float | None:
        """When the next session that is away loses its place, by the clock of `queue.now_s`."""
        lapse_s = _lapse_s(queue)
        if lapse_s is None:
            return None
        ends = [
            session.paused_s + lapse_s
            for session in queue.items.values()
            if session.paused_s is not None and session.paused_s + lapse_s > queue.now_s
        ]
        return min(ends, default=None)

    def _held(self, queue: Queue) -> dict[int, float]:
        """The tokens that sessions with a place hold or are about to, by item.

        One whose turn waits has no place: it asks for it anew.
        """
        lapse_s = _lapse_s(queue)
        waiting = {asked.item for asked in queue.ready_of_open}
        held: dict[int, float] = {}
        for item, session in queue.items.items():
            if session.paused_s is None:  # it is on the engine
                keeps = True
            else:
                has_lapsed = lapse_s is not None and queue.now_s - session.paused_s >= lapse_s
                keeps = item not in waiting and not has_lapsed
            if keeps:
                held[item] = session.tokens - queue.shared_tokens + session.growth_tokens
        return held


def _lapse_s(queue: Queue) -> float | None:
    """How long a session that is away keeps its place."""
    if queue.room is None or queue.prefill_s is None:
        return None
    return queue.prefill_s * queue.room.kv_tokens / queue.num_engines


def _need(asked: Asked, queue: Queue) -> float:
    """The tokens that a turn adds to what is shared by all."""
    session = queue.items.get(item_of(asked))
    growth = max(asked.max_tokens, queue.growth_tokens)
    if session is not None:
        growth = session.growth_tokens
    return len(asked.prompt_token_ids) - queue.shared_tokens + growth
