"""PARK: turns of agent sessions are sent while what the older ones hold fits into the KV cache.

An agent that calls tools comes back with a prompt that begins with its last one. If its KV cache is
there still, a turn costs its new tokens only; if all sessions are open and do not fit, each turn
evicts another session's cache, and everything is computed again and again. So a session that has
begun keeps its place while older ones leave it room, and others wait.

Sessions grow. When a turn does not fit any more, the youngest lose their places until the next
turns of the others fit, and come in again only where there is room beside all of these: one that
came in because it is older than some would displace what those come back for.

One that is away for longer than its cache is worth gives its place to others. How long that is does
not depend on its size: computing H tokens again takes p·H seconds, and holding them for t seconds
keeps t·H of the cache's capacity from others, so they are worth keeping for p·capacity seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from helium_agents.optimizer.schedule import Asked, ItemUse, Queue, has_slot, item_of


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
        by_age = _by_age(queue)
        if queue.room is None or not queue.running:
            return by_age[0]
        _end_lapsed(queue)
        return _going_on(by_age, queue) or _coming_in(by_age, queue)

    def look_again_s(self, queue: Queue) -> float | None:
        """When the next session that is away loses its place, by the clock of `queue.now_s`."""
        lapse_s = _lapse_s(queue)
        if lapse_s is None:
            return None
        ends = [
            use.paused_s + lapse_s
            for use in queue.items.values()
            if use.paused_s is not None and use.paused_s + lapse_s > queue.now_s
        ]
        return min(ends, default=None)

    def is_full(self, queue: Queue) -> bool:
        """Whether the next turns of all open sessions do not fit into the KV cache together."""
        if queue.room is None:
            return False
        return _held(queue.items.values(), queue) > _room_tokens(queue)


def _by_age(queue: Queue) -> list[Asked]:
    next_item = queue.next_item
    waiting = [*queue.ready_of_open, *([] if next_item is None else [next_item])]
    return sorted((asked for asked in waiting if asked.item is not None), key=item_of)


def _going_on(by_age: Sequence[Asked], queue: Queue) -> Asked | None:
    """The oldest turn of a session with a place; where it does not fit, room is made."""
    for asked in by_age:
        item = item_of(asked)
        use = queue.items.get(item)
        if use is None or not use.has_place:
            continue
        older = [each for other, each in queue.items.items() if other <= item and each.has_place]
        if _held(older, queue) <= _room_tokens(queue):
            return asked
        _make_room(queue)
        return None
    return None


def _make_room(queue: Queue) -> None:
    """Let the youngest lose their places, until the next turns of the others fit."""
    left_tokens: float = _room_tokens(queue)
    for _, use in sorted(queue.items.items()):
        if use.has_place:
            left_tokens -= _held([use], queue)
            # what is on the engine is there
            use.has_place = left_tokens >= 0 or use.paused_s is None


def _coming_in(by_age: Sequence[Asked], queue: Queue) -> Asked | None:
    """The oldest turn of a session without a place, if it fits beside the others' next turns."""
    held = _held([use for use in queue.items.values() if use.has_place], queue)
    for asked in by_age:
        use = queue.items.get(item_of(asked))
        if use is None or not use.has_place:
            return asked if held + _need(asked, queue) <= _room_tokens(queue) else None
    return None


def _end_lapsed(queue: Queue) -> None:
    """Let those who are away for too long lose their places."""
    lapse_s = _lapse_s(queue)
    if lapse_s is None:
        return
    for use in queue.items.values():
        if use.paused_s is not None and use.paused_s + lapse_s <= queue.now_s:
            use.has_place = False


def _lapse_s(queue: Queue) -> float | None:
    """How long a session that is away keeps its place."""
    if queue.room is None or queue.prefill_s is None:
        return None
    return queue.prefill_s * queue.room.kv_tokens / queue.num_engines


def _room_tokens(queue: Queue) -> int:
    """What the engines hold, without what all sessions share."""
    assert queue.room is not None
    return queue.room.kv_tokens - queue.num_engines * queue.shared_tokens


def _held(uses: Iterable[ItemUse], queue: Queue) -> float:
    """What sessions hold after their next turns, without what all share."""
    return sum(use.tokens - queue.shared_tokens + use.growth_tokens for use in uses)


def _need(asked: Asked, queue: Queue) -> float:
    """What a session holds after the turn that it asks for, without what all share."""
    use = queue.items.get(item_of(asked))
    growth = max(asked.max_tokens, queue.growth_tokens) if use is None else use.growth_tokens
    return len(asked.prompt_token_ids) - queue.shared_tokens + growth
