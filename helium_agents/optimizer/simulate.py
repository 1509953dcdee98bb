"""The coarse simulator: how long rows would take under a policy of opening, one event a call.

Prompts are prefilled one after another, answers are decoded together, and the prefix cache keeps
whole pieces of prompts, the least recently used ones going first. Engines of several models go side
by side, each with what it is asked. It is pure, takes tens of microseconds a call, and errs on the
safe side: it makes policies look worse than they are. Ratios between two of its results may be
trusted, the results themselves hardly.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, replace

from helium_agents.optimizer.forecast import Forecast, ForecastCall
from helium_agents.optimizer.policy import ALL_OPEN, Policy
from helium_agents.optimizer.step_cost import Step, StepCost

_BATCHED_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class SimulatedRoom:
    """The engine.

    Args:
        kv_tokens: Tokens of KV cache.
        max_requests: Most requests in a step.
        cost: What a step takes.
        block_tokens: Tokens of a block: what is cached is cached in whole ones.
        drops_unused: Whether what no call will begin with again is the first to go.
        num_engines: How many such engines there are; one of them is simulated, with its share of
            the rows.
        others: The engines of the session's other models, in the order of their numbers.
    """

    kv_tokens: int
    max_requests: int
    cost: StepCost
    block_tokens: int = 1
    drops_unused: bool = False
    num_engines: int = 1
    others: tuple[SimulatedRoom, ...] = ()

    def each(self, change: Callable[[SimulatedRoom], SimulatedRoom]) -> SimulatedRoom:
        """With a change to it and to the others."""
        return replace(change(self), others=tuple(map(change, self.others)))


@dataclass(slots=True)
class SimulatedCall:
    """A question that is computed.

    Args:
        call: The first call that asks it.
        wanted_by: The calls that want it, by row and position.
        is_done: Whether it is answered.
        cached_tokens: Of its prompt, what the cache had.
        begun_s: When the engine began, its prompt included.
        end_s: When it was answered.
    """

    call: ForecastCall
    wanted_by: list[tuple[int, int]]
    is_done: bool = False
    cached_tokens: int = 0
    begun_s: float = 0.0
    end_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came of it.

    Args:
        seconds: Until all rows were done.
        calls: What was computed.
    """

    seconds: float
    calls: Collection[SimulatedCall]


def simulate(forecast: Forecast, room: SimulatedRoom, policy: Policy = ALL_OPEN) -> Simulated:
    """How rows go.

    Args:
        forecast: The rows.
        room: The engine.
        policy: Says which rows are begun beside others; with none open the next one always is.
    """
    run = _Run(forecast, room, policy)
    return Simulated(run.seconds(), run.calls)


class _Run:
    """The state of one simulated run: rows, and the engines that they ask."""

    def __init__(self, forecast: Forecast, room: SimulatedRoom, policy: Policy) -> None:
        self._rows = forecast.rows
        self._items = forecast.items
        self._policy = policy
        self._next_row = 0
        self._open_items: set[int] = set()
        self._left = [len(row) for row in self._rows]
        self._missing = [[len(call.inputs) for call in row] for row in self._rows]
        self._needed_by: list[list[list[int]]] = []
        for row in self._rows:
            needed_by: list[list[int]] = [[] for _ in row]
            for index, call in enumerate(row):
                for source in call.inputs:
                    needed_by[source].append(index)
            self._needed_by.append(needed_by)
        self._asked: dict[Hashable, SimulatedCall] = {}
        self._away: list[tuple[float, int, int]] = []  # calls that follow a pause, by its end
        calls = {call.question: call for row in self._rows for call in row}.values()
        self._engines = [
            _Engine(each, forecast, [call for call in calls if call.engine == number])
            for number, each in enumerate((room, *room.others))
        ]
        self._now_s = 0.0

    @property
    def calls(self) -> Collection[SimulatedCall]:
        """What was asked."""
        return self._asked.values()

    def seconds(self) -> float:
        """Run it."""
        self._open_rows()
        while True:
            for each in self._engines:
                each.prefill()
            running = [each for each in self._engines if each.running]
            if not running and not self._away:
                return self._now_s
            engine = running[0] if running else None
            if len(running) > 1:
                engine = min(running, key=_Engine.next_s)
            if engine is None or (self._away and self._away[0][0] <= engine.next_s()):
                self._now_s, row, index = heapq.heappop(self._away)
                self._ask(row, index)
            else:
                ended = engine.decode()
                self._now_s = max(self._now_s, engine.now_s)
                for asked in ended:
                    for row, index in asked.wanted_by:
                        self._answer(row, index)
            self._open_rows()

    def _open_rows(self) -> None:
        while self._next_row < len(self._rows):
            row = self._next_row
            item, open_items = self._items[row], self._open_items
            if open_items and not self._policy.may_open(item, open_items):
                return
            self._next_row += 1
            if self._rows[row]:
                open_items.add(item)
            for index, missing in enumerate(self._missing[row]):
                if not missing:
                    self._ask(row, index)

    def _ask(self, row: int, index: int) -> None:
        call = self._rows[row][index]
        asked = self._asked.get(call.question)
        if asked is None:
            asked = self._asked[call.question] = SimulatedCall(call, [(row, index)])
            self._engines[call.engine].ask(asked, self._now_s)
        elif asked.is_done:
            self._answer(row, index)
        else:
            asked.wanted_by.append((row, index))

    def _answer(self, row: int, index: int) -> None:
        self._left[row] -= 1
        if not self._left[row]:
            self._open_items.remove(self._items[row])
        for other in self._needed_by[row][index]:
            self._missing[row][other] -= 1
            if self._missing[row][other]:
                continue
            pause_s = self._rows[row][other].pause_s
            if pause_s:
                heapq.heappush(self._away, (self._now_s + pause_s, row, other))
            else:
                self._ask(row, other)


class _Engine:
    """The state of an engine.

    Attributes:
        running: What it computes, by the decode at which it ends.
        now_s: Up to when it was simulated.
    """

    def __init__(
        self, room: SimulatedRoom, forecast: Forecast, calls: Iterable[ForecastCall]
    ) -> None:
        self.running: list[tuple[float, int, SimulatedCall]] = []
        self.now_s = 0.0
        self._room = room
        self._tokens = held_tokens(forecast, room.block_tokens)
        self._ready: OrderedDict[int, SimulatedCall] = OrderedDict()
        self._num_asked = 0
        self._is_step_full = False  # more prompts are to be computed in the one after it
        self._coming: Counter[int] = Counter()  # prompts to come that have a piece
        for call in calls:
            self._coming.update(call.prompt)
        self._in_use: Counter[int] = Counter()  # pieces of running prompts
        self._cached: OrderedDict[int, None] = OrderedDict()  # others, the oldest first
        self._used_tokens = 0  # of all that is in use or cached
        self._in_use_tokens = 0
        self._context_tokens = 0.0
        self._num_decodes = 0.0

    def ask(self, asked: SimulatedCall, now_s: float) -> None:
        """A call comes."""
        if self.now_s < now_s:
            if self.running:
                self._num_decodes += (now_s - self.now_s) / self._step_s()
            self.now_s = now_s
        self._num_asked += 1
        self._ready[self._num_asked] = asked

    def prefill(self) -> None:
        """Begin what fits into the next step, and compute its prompts."""
        if self._is_step_full:
            return
        batched = 0
        seconds = 0.0
        while self._ready and len(self.running) < self._room.max_requests:
            number, asked = next(iter(self._ready.items()))
            call = asked.call
            new_tokens = call.prompt_tokens - self._cached_tokens(call)
            need = self._growing_tokens(call)
            for piece in call.prompt:
                if piece not in self._in_use:
                    need += self._tokens[piece]
            if need > self._room.kv_tokens - self._in_use_tokens and self.running:
                break
            if batched + new_tokens > _BATCHED_TOKENS and batched:
                self._is_step_full = True
                break
            del self._ready[number]
            self._hold(call)
            start = asked.cached_tokens = call.prompt_tokens - new_tokens
            asked.begun_s = self.now_s
            seconds += self._room.cost.prefill_seconds(new_tokens, start)
            batched += new_tokens
            end = self._num_decodes + call.output_tokens
            heapq.heappush(self.running, (end, number, asked))
            self._context_tokens += call.prompt_tokens + call.output_tokens / 2
        if batched:
            self.now_s += seconds

    def next_s(self) -> float:
        """When the next answers are complete, or the step if there are more prompts."""
        return self.now_s + max(0.0, self._next_end() - self._num_decodes) * self._step_s()

    def decode(self) -> list[SimulatedCall]:
        """Go on until then; what is answered."""
        end = self._next_end()
        self.now_s += max(0.0, end - self._num_decodes) * self._step_s()
        self._num_decodes = max(self._num_decodes, end)
        self._is_step_full = False
        ended: list[SimulatedCall] = []
        while self.running and self.running[0][0] <= self._num_decodes:
            _, _, asked = heapq.heappop(self.running)
            self._context_tokens -= asked.call.prompt_tokens + asked.call.output_tokens / 2
            self._let_go(asked.call)
            asked.is_done, asked.end_s = True, self.now_s
            ended.append(asked)
        return ended

    def _next_end(self) -> float:
        """The decode at which the next answers are complete, or the next one."""
        most = 1.0 if self._is_step_full else float("inf")
        return min(self.running[0][0], self._num_decodes + most)

    def _step_s(self) -> float:
        step = Step(decodes=len(self.running), context_tokens=int(self._context_tokens))
        return self._room.cost.seconds(step)

    # --- the prefix cache ----------------------------------------------------------------------

    def _cached_tokens(self, call: ForecastCall) -> int:
        """Prompt tokens that are there: those before the first piece that is not.

        The last token is computed in any case.
        """
        total = 0
        for piece in call.prompt:
            if piece not in self._in_use and piece not in self._cached:
                break
            total += self._tokens[piece]
        return min(total, call.prompt_tokens - 1)

    def _hold(self, call: ForecastCall) -> None:
        for piece in call.prompt:
            self._coming[piece] -= 1
            if piece not in self._in_use:
                self._in_use_tokens += self._tokens[piece]
                if piece in self._cached:
                    del self._cached[piece]
                else:
                    self._used_tokens += self._tokens[piece]
            self._in_use[piece] += 1
        self._used_tokens += self._growing_tokens(call)
        self._in_use_tokens += self._growing_tokens(call)
        self._evict()

    def _let_go(self, call: ForecastCall) -> None:
        self._used_tokens -= self._growing_tokens(call)
        self._in_use_tokens -= self._growing_tokens(call)
        for piece in (*reversed(call.answer), *reversed(call.prompt)):
            if piece in self._in_use:
                self._in_use[piece] -= 1
                if self._in_use[piece] > 0:
                    continue
                del self._in_use[piece]
                self._in_use_tokens -= self._tokens[piece]
            elif piece not in self._cached:
                self._used_tokens += self._tokens[piece]
            is_unused = self._room.drops_unused and not self._coming[piece]
            self._cached[piece] = None
            self._cached.move_to_end(piece, last=not is_unused)
        self._evict()

    def _evict(self) -> None:
        while self._used_tokens > self._room.kv_tokens and self._cached:
            piece, _ = self._cached.popitem(last=False)
            self._used_tokens -= self._tokens[piece]

    def _growing_tokens(self, call: ForecastCall) -> int:
        """What an answer holds while it is decoded: half of it, on average, and a begun block."""
        return call.output_tokens // 2 + self._room.block_tokens // 2


def held_tokens(forecast: Forecast, block_tokens: int) -> list[int]:
    """By piece, the tokens of the blocks that end in it.

    A block in which a prompt leaves the others' is held for each of them.
    """
    found = [0] * len(forecast.piece_tokens)
    for row in forecast.rows:
        for call in row:
            end = 0
            for piece in (*call.prompt, *call.answer):
                start, end = end, end + forecast.piece_tokens[piece]
                found[piece] = (end // block_tokens - start // block_tokens) * block_tokens
    return found
