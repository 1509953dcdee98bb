"""When a run's requests waited, were read and were answered, on which slot; and the load of that.

An engine has as many slots as requests run at once: each request is shown on the first one that is
free when it begins.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import pairwise
from math import inf

from helium_agents.diagnose.analyze import ready_times
from helium_agents.diagnose.prefixes import Prefixes
from helium_agents.optimizer.step_cost import STEP_COSTS, StepCost
from helium_agents.trace.run import TracedCall, TracedRun

_MOST_POINTS = 4_000


@dataclass(frozen=True)
class Phases:
    """The times of a request, in seconds since the run began.

    Args:
        call: Its call.
        ready_s: When all that it needed was there, and its engine.
        sent_s: When it was sent to the engine.
        begun_s: When the engine began to read the prompt; where it does not tell, when it was sent.
        first_token_s: When its prompt had been read.
        end_s: When its answer was there.
        is_estimated: Whether `first_token_s` is estimated, since the engine told none: the answer's
            tokens at the end take what they would in an average step, and the prompt the rest.
        slot: Where it ran, counted from 0 in its model.
    """

    call: TracedCall
    ready_s: float
    sent_s: float
    begun_s: float
    first_token_s: float
    end_s: float
    is_estimated: bool
    slot: int = 0


def phases_of(run: TracedRun) -> list[Phases]:
    """The requests of a run, in the order in which engines began them."""
    came, shares = ready_times(run), _ReadShares(run)
    found = [_phases(call, came[call.number], shares) for call in _requests(run)]
    found.sort(key=lambda each: (each.begun_s, each.call.number))
    slots: dict[str, _Slots] = defaultdict(_Slots)
    return [
        replace(each, slot=slots[each.call.model].take(each.begun_s, each.end_s)) for each in found
    ]


def _phases(call: TracedCall, came_s: float, shares: _ReadShares) -> Phases:
    """A request's times, whose inputs came at a time; without its slot."""
    assert call.sent_s is not None
    end_s = max(call.end_s, call.sent_s)
    first_s, is_estimated = call.first_token_s, False
    if first_s is None or not call.sent_s <= first_s <= end_s:
        is_estimated = True
        first_s = call.sent_s + shares.of(call) * (end_s - call.sent_s)
    begun_s = call.sent_s if call.begun_s is None else call.begun_s
    begun_s = min(max(begun_s, call.sent_s), first_s)
    ready_s = min(call.sent_s, came_s)
    return Phases(call, ready_s, call.sent_s, begun_s, first_s, end_s, is_estimated)


@dataclass(frozen=True)
class Load:
    """What was under way, from each time to the next.

    Args:
        times: In seconds since the run began.
        running: Requests on engines.
        waiting: Requests whose inputs were there.
        kv_tokens: Tokens that the running requests hold, shared ones once, their answers as if
            they came evenly; empty where the prompts are not known.
        hit_share: Of the prompt tokens sent so far, what engines had in their caches.
    """

    times: list[float]
    running: list[int]
    waiting: list[int]
    kv_tokens: list[int]
    hit_share: list[float]


def load_of(requests: Sequence[Phases], trees: Iterable[Prefixes]) -> Load:
    """The load of requests.

    Args:
        requests: They.
        trees: The prefix trees of their prompts; none to leave out `kv_tokens`.
    """
    kept = _KeptTokens(trees)
    events = sorted(
        [(request.ready_s, 0, number) for number, request in enumerate(requests)]
        + [(request.sent_s, 1, number) for number, request in enumerate(requests)]
        + [(request.end_s, 2, number) for number, request in enumerate(requests)]
    )
    load = Load([], [], [], [], [])
    running = waiting = prompt_tokens = cached_tokens = 0
    every_s = (events[-1][0] - events[0][0]) / _MOST_POINTS if events else 0.0
    for (time_s, kind, number), (next_s, *_) in pairwise([*events, (inf, 0, 0)]):
        request = requests[number]
        if kind == 0:
            waiting += 1
        elif kind == 1:
            waiting, running = waiting - 1, running + 1
            prompt_tokens += request.call.prompt_tokens
            cached_tokens += request.call.cached_tokens
            kept.add(request)
        else:
            running -= 1
            kept.remove(request)
        if next_s == time_s or (load.times and next_s - load.times[-1] < every_s):
            continue
        load.times.append(time_s)
        load.running.append(running)
        load.waiting.append(waiting)
        load.hit_share.append(cached_tokens / prompt_tokens if prompt_tokens else 0.0)
        if kept.is_known:
            load.kv_tokens.append(kept.at(time_s))
    return load


class _Slots:
    """The slots of an engine; the first free one is taken."""

    def __init__(self) -> None:
        self._busy: list[tuple[float, int]] = []
        self._free: list[int] = []
        self._number = 0

    def take(self, begin_s: float, end_s: float) -> int:
        while self._busy and self._busy[0][0] <= begin_s:
            heappush(self._free, heappop(self._busy)[1])
        if self._free:
            slot = heappop(self._free)
        else:
            slot, self._number = self._number, self._number + 1
        heappush(self._busy, (end_s, slot))
        return slot


class _KeptTokens:
    """The tokens of the requests that run, those of shared beginnings once."""

    def __init__(self, trees: Iterable[Prefixes]) -> None:
        self._paths: dict[int, list[tuple[int, int]]] = {}
        number = 0
        for tree in trees:
            stack = [(root, 0) for root in tree.roots]
            while stack:
                node, _ = stack.pop()
                number += 1
                for call in tree.calls[node.begin : node.end]:
                    self._paths.setdefault(call.number, []).append((number, node.stop - node.start))
                stack += [(child, number) for child in node.children]
        self._users: Counter[int] = Counter()
        self._prompt_tokens = 0
        self._rate = self._offset = 0.0  # of the answers' tokens: a line in time

    @property
    def is_known(self) -> bool:
        return bool(self._paths)

    def add(self, request: Phases) -> None:
        for node, num_tokens in self._paths.get(request.call.number, ()):
            self._prompt_tokens += num_tokens if not self._users[node] else 0
            self._users[node] += 1
        self._answer(request, 1)

    def remove(self, request: Phases) -> None:
        for node, num_tokens in self._paths.get(request.call.number, ()):
            self._users[node] -= 1
            self._prompt_tokens -= num_tokens if not self._users[node] else 0
        self._answer(request, -1)

    def _answer(self, request: Phases, sign: int) -> None:
        seconds = request.end_s - request.sent_s
        rate = request.call.output_tokens / seconds if seconds > 0 else 0.0
        self._rate += sign * rate
        self._offset -= sign * rate * request.sent_s

    def at(self, time_s: float) -> int:
        return round(self._prompt_tokens + max(0.0, self._rate * time_s + self._offset))


def _requests(run: TracedRun) -> Iterable[TracedCall]:
    """The calls for which an engine was asked, failed ones too."""
    for call in run.calls:
        if call.kind == "llm" and call.source == "engine" and call.sent_s is not None:
            yield call


class _ReadShares:
    """Of the time that a request is on an engine, the share in which its prompt is being read."""

    def __init__(self, run: TracedRun) -> None:
        self._costs = {
            model: StepCost.from_dict(engine.cost)
            for model, engine in run.engines.items()
            if engine.cost is not None
        }
        spans = [(call.sent_s or 0.0, call.end_s) for call in _requests(run)]
        busy_s, reached_s = 0.0, 0.0
        for begin_s, end_s in sorted(spans):
            busy_s += max(0.0, end_s - max(begin_s, reached_s))
            reached_s = max(reached_s, end_s)
        total_s = sum(end_s - begin_s for begin_s, end_s in spans)
        self._batch = total_s / busy_s if busy_s else 1.0

    def of(self, call: TracedCall) -> float:
        known = self._costs.get(call.model)
        cost = known or STEP_COSTS["h100-8b"]
        new_tokens = call.prompt_tokens - call.cached_tokens
        read_s = cost.step_s + cost.prefill_seconds(new_tokens, call.cached_tokens)
        write_s = call.output_tokens * (cost.step_s + cost.decode_s * self._batch)
        seconds = call.end_s - (call.sent_s or 0.0)
        if known is None or read_s + write_s >= seconds:
            return read_s / (read_s + write_s)
        return 1 - write_s / seconds
