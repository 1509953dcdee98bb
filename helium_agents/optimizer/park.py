"""PARK: turns of agent sessions are sent while what the older ones hold fits into the KV cache.

An agent that calls tools comes back with a prompt that begins with its last one. If its KV cache is
there still, a turn costs its new tokens only; if all sessions are open and do not fit, each turn
evicts another session's cache, and everything is computed again and again. So a session that has
begun keeps its place while older ones leave it room, and others wait.

Sessions grow. When a turn does not fit any more, the youngest lose their places until the next
turns of the others fit, and come in again only where there is room beside all of these: one that
came in because it is older than some would displace what those come back for.

Room is kept for more than the next turn where sessions had better begin later than be computed
again. One that takes part in a turn bears a share of what the steps take whatever is in them,
a·T/n seconds of T answer tokens in a batch of n; it loses p·G seconds if it must compute the G
tokens of the turn again. Where that is k times as much, there is to be room for k turns. (With four
at most: how many a session still has nobody knows.)

One that is away for longer than its cache is worth gives its place to others: computing H tokens
again takes p·H seconds, and holding them for t seconds keeps t·H of the cache's capacity from
others, so they are worth keeping for p·capacity seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from helium_agents.optimizer.schedule import Asked, ItemUse, Queue, has_slot, item_of


class Park:
    """Sends turns while the sessions that hold a place, older ones first, fit into the KV cache.

    For items that pause for something outside the engine, or whose number of turns nobody knows.
    Where all calls of an item are known when it opens, its batches may be emptier than need be.
    """

    def keeps_prefixes(self, queue: Queue) -> bool:
        """Always."""
        return True

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
        return min((end_s for _, end_s in _ends(queue) if end_s > queue.now_s), default=None)

    def is_full(self, queue: Queue) -> bool:
        """Whether the turns to come of all open sessions do not fit into the KV cache together."""
        if queue.room is None:
            return False
        return _held(queue.items.values(), queue, _turns_ahead(queue)) > _room_tokens(queue)

    def gain(self, queue: Queue) -> float:
        """How many turns are taken in a while if sessions are parked ÷ if all are open.

        Infinite where it is not known what a step costs, or what turns are like.
        """
        turn, cost = queue.usual_turn, queue.cost
        if turn is None or cost is None or queue.room is None or not queue.items:
            return math.inf
        num_all = len(queue.items.keys() | {asked.item for asked in queue.ready} - {None})
        own = sum(use.tokens for use in queue.items.values()) / len(queue.items)
        own = max(1.0, own - queue.shared_tokens)
        num_fit = min(num_all, _room_tokens(queue) / (own + queue.growth_tokens))
        anew_s = cost.prefill_seconds(own, queue.shared_tokens)
        work_s = cost.prefill_seconds(queue.growth_tokens, queue.shared_tokens + own)
        work_s += turn.answer_tokens * cost.decode_s
        answer_s = turn.answer_tokens * cost.step_s
        lapse_s = _lapse_s(own, anew_s, queue)
        # of sessions that are parked, those count that have not given up their places
        held_s = sum(min(each.pause_s, lapse_s) for each in queue.turns) / len(queue.turns)
        lapsed = sum(each.pause_s > lapse_s for each in queue.turns) / len(queue.turns)
        lost = min(1.0, 2.0 * (1.0 - num_fit / num_all))  # evicted before they come back
        engines = queue.num_engines
        parked = min(
            _turns_per_s(num_fit / engines, held_s, answer_s, work_s + lapsed * anew_s),
            _turns_per_s(num_all / engines, turn.pause_s, answer_s, work_s + lapsed * anew_s),
        )
        return parked / _turns_per_s(
            num_all / engines, turn.pause_s, answer_s, work_s + lost * anew_s
        )


def _turns_per_s(num_sessions: float, pause_s: float, answer_s: float, work_s: float) -> float:
    """Turns a second of sessions that are away for a while and then wait for the engine.

    With r turns a second the engine is at work on what they add to steps for r·work of the time, so
    steps take 1 / (1 - r·work) times as long as empty ones: r (pause + answer / (1 - r·work)) is
    the number of sessions.

    Args:
        num_sessions: Of one engine.
        pause_s: How long each is away.
        answer_s: What the steps of an answer take, whatever is in them.
        work_s: What a turn adds to steps.
    """
    half = (pause_s + answer_s + num_sessions * work_s) / 2
    root = math.sqrt(max(0.0, half * half - pause_s * work_s * num_sessions))
    return num_sessions / ((half + root) or 1.0)


def _by_age(queue: Queue) -> list[Asked]:
    next_item = queue.next_item
    waiting = [*queue.ready_of_open, *([] if next_item is None else [next_item])]
    return sorted((asked for asked in waiting if asked.item is not None), key=item_of)


def _going_on(by_age: Sequence[Asked], queue: Queue) -> Asked | None:
    """The oldest turn of a session with a place; where it does not fit, room is made."""
    num_turns = _turns_ahead(queue)
    for asked in by_age:
        item = item_of(asked)
        use = queue.items.get(item)
        if use is None or not use.has_place:
            continue
        older = [each for other, each in queue.items.items() if other <= item and each.has_place]
        if _held(older, queue, num_turns) <= _room_tokens(queue):
            return asked
        _make_room(queue, num_turns)
        return None
    return None


def _make_room(queue: Queue, num_turns: float) -> None:
    """Let the youngest lose their places, until turns to come of the others fit."""
    left_tokens: float = _room_tokens(queue)
    for _, use in sorted(queue.items.items()):
        if use.has_place:
            left_tokens -= _held([use], queue, num_turns)
            # what is on the engine is there
            use.has_place = left_tokens >= 0 or use.paused_s is None


def _coming_in(by_age: Sequence[Asked], queue: Queue) -> Asked | None:
    """The oldest turn of a session without a place, if it fits beside the others' next turns."""
    for asked in by_age:
        use = queue.items.get(item_of(asked))
        if use is None or not use.has_place:
            num_turns = _turns_ahead(queue)
            held = _held(_with_place(queue), queue, num_turns)
            need = _need(asked, queue, num_turns)
            return asked if held + need <= _room_tokens(queue) else None
    return None


def _end_lapsed(queue: Queue) -> None:
    """Let those who are away for too long lose their places."""
    for use, end_s in _ends(queue):
        if end_s <= queue.now_s:
            use.has_place = False


def _ends(queue: Queue) -> Iterator[tuple[ItemUse, float]]:
    """The sessions with a place that are away, and until when each keeps it."""
    if queue.room is None:
        return
    shared_tokens = queue.shared_tokens
    for use in queue.items.values():
        own_tokens = use.tokens - shared_tokens
        if use.paused_s is None or not use.has_place or own_tokens <= 0:
            continue
        anew_s = queue.prefill_seconds(own_tokens, shared_tokens)
        if anew_s is None:  # nobody knows what tokens take
            return
        yield use, use.paused_s + _lapse_s(own_tokens, anew_s, queue)


def _lapse_s(own_tokens: float, anew_s: float, queue: Queue) -> float:
    """How long a place is worth keeping, of tokens that take so long to be computed again."""
    assert queue.room is not None
    return anew_s / own_tokens * queue.room.kv_tokens / queue.num_engines


def _turns_ahead(queue: Queue) -> float:
    """For how many turns of each session room is kept, at least the next one."""
    uses, turn, cost = _with_place(queue), queue.usual_turn, queue.cost
    if not uses or turn is None or cost is None:
        return 1.0
    tokens = sum(use.tokens for use in uses) / len(uses)
    anew_s = cost.prefill_seconds(queue.growth_tokens, tokens)
    share_fits = _room_tokens(queue) / max(1.0, _held(uses, queue, 1.0))
    batch = max(1.0, len(uses) * min(1.0, share_fits) * (1.0 - turn.pause_share))
    shared_s = cost.step_s * turn.answer_tokens / batch
    if not shared_s:
        return 1.0
    return min(_MOST_AHEAD, max(1.0, anew_s / shared_s))


_MOST_AHEAD = 4.0


def _with_place(queue: Queue) -> list[ItemUse]:
    return [use for use in queue.items.values() if use.has_place]


def _room_tokens(queue: Queue) -> int:
    """What the engines hold, without what all sessions share."""
    assert queue.room is not None
    return queue.room.kv_tokens - queue.num_engines * queue.shared_tokens


def _held(uses: Iterable[ItemUse], queue: Queue, num_turns: float) -> float:
    """What sessions hold after so many turns to come, without what all share."""
    return sum(use.tokens - queue.shared_tokens + num_turns * use.growth_tokens for use in uses)


def _need(asked: Asked, queue: Queue, num_turns: float) -> float:
    """What a session holds after turns from the one on that it asks for, without what all share."""
    use = queue.items.get(item_of(asked))
    growth = max(asked.max_tokens, queue.growth_tokens) if use is None else use.growth_tokens
    return len(asked.prompt_token_ids) - queue.shared_tokens + num_turns * growth
