"""What `benchmarks.harness.calibration` measures: batches of meaningless prompts, and their times.

Decode is measured as what longer answers take beyond shorter ones to the same cached prompts, so
neither prefill nor the arrival of requests is in it. Sizes are such that two CPU cores measure all
of a small model a few times in 25 s; for a much slower one the longest prompts are left out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from helium_agents.engines.engine import (
    Capacity,
    ChatMessage,
    Choice,
    Completion,
    Engine,
    Request,
)
from helium_agents.graph.sampling import Sampling

BATCHES = (1, 4, 16, 32, 64)
PREFILL_TOKENS = (64, 256, 768, 2048, 4096)
SUFFIX_TOKENS, PREFIX_BLOCKS = 128, 64
SHORT_ANSWER, LONG_ANSWER = 4, 16
"""Decode is the difference between them; the engines of the benchmarks answer at least 16."""

_SHORTEST_TOKENS = 8
_TAIL_TOKENS = 4  # which make a prompt differ from others with the same context
_PREFILL_S = 0.35  # of a batch of prompts; long enough that a timer's or a thread's jitter is small
_ALWAYS_TOKENS = 2048  # prompts of this length are measured however long it takes
_UNIQUE_S = 3.0  # at most, to prefill contexts that have nothing in common
_SHARED_TOKENS = 768
_WORDS = "the quick brown fox jumps over a lazy dog while 0 1 2 3 4 5 6 7 8 9 hens look on"


@dataclass(frozen=True, slots=True)
class PrefillPoint:
    """The best time of a batch of prompts.

    Args:
        num_requests: Prompts in it.
        prompt_tokens: Length of each.
        cached_tokens: How much of each was cached.
        position: Mean position of the tokens that were computed.
        token_s: Seconds for each of them.
    """

    num_requests: int
    prompt_tokens: int
    cached_tokens: int
    position: float
    token_s: float


@dataclass(frozen=True, slots=True)
class DecodePoint:
    """The best rate of a batch of answers.

    Args:
        batch: Mean number of answers that grew at once.
        prompt_tokens: Length of each prompt.
        is_shared: Whether the prompts are the same but for the last tokens.
        position: Mean position of the answers' tokens.
        tokens_per_s: Of all answers together.
    """

    batch: float
    prompt_tokens: int
    is_shared: bool
    position: float
    tokens_per_s: float

    @property
    def token_s(self) -> float:
        """Seconds for each token."""
        return 1 / self.tokens_per_s

    @property
    def step_s(self) -> float:
        """Seconds for one token of each answer."""
        return self.batch / self.tokens_per_s


class MeasurableEngine(Engine, Protocol):
    """An engine with abilities, as `WholeEngine` has them, whose prefix cache can be emptied."""

    @property
    def is_started(self) -> bool: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]: ...

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None: ...

    @property
    def capacity(self) -> Capacity | None: ...

    async def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes."""
        ...


class Probe:
    """Asks an engine for answers to meaningless prompts, and times it."""

    def __init__(self, engine: MeasurableEngine, clock: Callable[[], float]) -> None:
        if engine.capacity is None:
            raise ValueError(f"engine {engine.name!r} must be started, and say what it holds")
        self.capacity = engine.capacity
        self.max_requests = self.capacity.max_requests
        self.clock = clock
        self._engine = engine
        self._random = random.Random(1)
        self._ids = count()
        self._tokens: list[int] = []

    @staticmethod
    async def of(engine: MeasurableEngine, clock: Callable[[], float]) -> Probe:
        """Of a started engine, whose prefix cache is emptied."""
        probe = Probe(engine, clock)
        await engine.reset_prefix_cache()
        template = await engine.render([ChatMessage("user", "")])
        rendered = await engine.render([ChatMessage("user", _WORDS)])
        probe._tokens = sorted(set(rendered) - set(template))
        return probe

    def prompt(self, num_tokens: int) -> list[int]:
        """One that no other prompt has a block in common with."""
        return self._random.choices(self._tokens, k=num_tokens)

    async def time(
        self, prompts: Sequence[Sequence[int]], max_tokens: int
    ) -> tuple[float, list[Completion]]:
        """Seconds until all are answered, and the answers."""
        sampling = Sampling(max_tokens=max_tokens)
        requests = [
            Request(f"calibration-{next(self._ids)}", (), prompt, sampling) for prompt in prompts
        ]
        start_s = self.clock()
        completions = await asyncio.gather(*map(self._engine.complete, requests))
        return self.clock() - start_s, completions


async def _rounds(
    measures: Sequence[Callable[[], Awaitable[None]]], seconds: float, clock: Callable[[], float]
) -> None:
    """Measure all in turn, once, and then again as long as there is time for the next."""
    end_s = clock() + seconds
    costs: list[float] = []
    for number in count():
        index = number % len(measures)
        is_first = number < len(measures)
        if not is_first and clock() + costs[index] > end_s:
            return
        start_s = clock()
        await measures[index]()
        if is_first:
            costs.append(clock() - start_s)


class _PrefillMeasure:
    """The best time of a batch of prompts that may begin with the same cached prefix."""

    def __init__(self, probe: Probe, num_requests: int, prompt_tokens: int, prefix: int) -> None:
        self._probe = probe
        self._num_requests = num_requests
        self._suffix_tokens = prompt_tokens - prefix
        self._prefix = probe.prompt(prefix)
        self._best: tuple[float, int, int] | None = None
        self._prompt_tokens = prompt_tokens

    async def __call__(self) -> None:
        """Measure once more."""
        if self._prefix:
            await self._probe.time([[*self._prefix, *self._probe.prompt(1)]], 1)
        prompts = [
            [*self._prefix, *self._probe.prompt(self._suffix_tokens)]
            for _ in range(self._num_requests)
        ]
        seconds, completions = await self._probe.time(prompts, 1)
        cached = [completion.cached_tokens for completion in completions]
        length = self._prompt_tokens
        tokens = sum(length - each for each in cached)
        positions = sum((each + length - 1) * (length - each) // 2 for each in cached)
        if self._best is None or seconds / tokens < self._best[0] / self._best[1]:
            self._best = seconds, tokens, positions

    def point(self, first_token_s: float) -> PrefillPoint:
        """The result, without what the shortest request takes."""
        assert self._best is not None, "not measured"
        seconds, tokens, positions = self._best
        computed = tokens / self._num_requests
        return PrefillPoint(
            self._num_requests,
            self._prompt_tokens,
            round(self._prompt_tokens - computed),
            positions / tokens,
            max(seconds - first_token_s, 0.0) / (tokens - _SHORTEST_TOKENS),
        )


async def measure_prefill(probe: Probe, seconds: float) -> tuple[float, tuple[PrefillPoint, ...]]:
    """Best time to first token, and prefill by position."""
    limit = min(probe.capacity.max_model_tokens - 1, probe.capacity.kv_tokens)
    await probe.time([probe.prompt(_SHORTEST_TOKENS)], 1)  # what is made at first use is made now
    warm_up = probe.prompt(min(512, limit))
    rough_s, _ = await probe.time([warm_up], 1)
    rate = len(warm_up) / rough_s
    limit = min(limit, max(round(0.4 * seconds * rate), _ALWAYS_TOKENS))

    def measure(suffix: int, prefix: int = 0) -> _PrefillMeasure:
        num_requests = min(max(round(_PREFILL_S * rate / suffix), 1), probe.max_requests)
        return _PrefillMeasure(probe, num_requests, prefix + suffix, prefix)

    measures = [measure(tokens) for tokens in PREFILL_TOKENS if tokens <= limit]
    prefix = PREFIX_BLOCKS * probe.capacity.block_tokens
    if prefix + 2 * SUFFIX_TOKENS <= limit:
        measures.append(measure(SUFFIX_TOKENS, prefix))
    first_tokens_s: list[float] = []

    async def first_token() -> None:
        for _ in range(5):
            first_tokens_s.append((await probe.time([probe.prompt(_SHORTEST_TOKENS)], 1))[0])

    await _rounds([first_token, *measures], seconds, probe.clock)
    first_token_s = min(first_tokens_s)
    return first_token_s, tuple(each.point(first_token_s) for each in measures)


class _DecodeMeasure:
    """The best time that a batch takes for longer answers beyond that for shorter ones."""

    def __init__(self, probe: Probe, prompts: Sequence[Sequence[int]], is_shared: bool) -> None:
        self._probe = probe
        self._prompts = prompts
        self._is_shared = is_shared
        self._best_s = {SHORT_ANSWER: float("inf"), LONG_ANSWER: float("inf")}
        self._lengths: dict[int, list[int]] = {}

    async def __call__(self) -> None:
        """Measure once more."""
        for max_tokens in self._best_s:
            seconds, completions = await self._probe.time(self._prompts, max_tokens)
            self._best_s[max_tokens] = min(self._best_s[max_tokens], seconds)
            self._lengths[max_tokens] = _lengths(completions)

    def point(self) -> DecodePoint | None:
        """The result; `None` where a jitter made the longer answers seem the quicker ones."""
        short, long = self._lengths[SHORT_ANSWER], self._lengths[LONG_ANSWER]
        tokens = sum(long) - sum(short)
        seconds = self._best_s[LONG_ANSWER] - self._best_s[SHORT_ANSWER]
        if seconds <= 0:
            return None
        positions = sum(
            (2 * len(prompt) + first + last - 3) * (last - first) / 2
            for prompt, first, last in zip(self._prompts, short, long, strict=True)
        )
        batch = tokens / (max(long) - max(short))
        prompt_tokens = len(self._prompts[0])
        return DecodePoint(
            batch, prompt_tokens, self._is_shared, positions / tokens, tokens / seconds
        )


async def measure_decode(probe: Probe, seconds: float, token_s: float) -> tuple[DecodePoint, ...]:
    """Decode rate by batch and context."""
    end_s = probe.clock() + seconds
    batches = sorted({min(batch, probe.max_requests) for batch in (*BATCHES, probe.max_requests)})
    kinds = _contexts(probe, batches, token_s)
    points: list[DecodePoint] = []
    for number, (prompts, is_shared) in enumerate(kinds):
        share_s = (end_s - probe.clock()) / (len(kinds) - number)
        until_s = probe.clock() + share_s
        ordered = await _longest_answers_first(probe, prompts)
        measures = [
            _DecodeMeasure(probe, ordered[:batch], is_shared)
            for batch in batches
            if batch <= len(ordered)
        ]
        await _rounds(measures, until_s - probe.clock(), probe.clock)
        points += [point for each in measures if (point := each.point()) is not None]
    if not points:
        raise ValueError(
            "longer answers took no longer than shorter ones: is the clock too coarse?"
        )
    return tuple(points)


def _contexts(
    probe: Probe, batches: Sequence[int], token_s: float
) -> list[tuple[list[list[int]], bool]]:
    """Prompts without context, with contexts of their own, and with one that all share.

    Contexts are whole blocks, so that they are cached when they are asked again.
    """
    block = probe.capacity.block_tokens
    room = round(0.9 * probe.capacity.kv_tokens)
    rest = _TAIL_TOKENS + LONG_ANSWER + block  # an answer may begin a block of its own

    def length(tokens: float) -> int:
        """Whole blocks that leave room for the rest of a prompt and its answer."""
        return max(int(min(tokens, probe.capacity.max_model_tokens - rest)), 0) // block * block

    def prompts(contexts: Sequence[list[int]]) -> list[list[int]]:
        return [[*context, *probe.prompt(_TAIL_TOKENS)] for context in contexts]

    most = batches[-1]
    kinds = [(prompts([[]] * most), False)]
    for batch in reversed(batches):
        unique = length(min(room / batch - rest, _UNIQUE_S / token_s / batch, _SHARED_TOKENS))
        if unique >= 4 * block or (batch == 1 and unique):
            kinds.append((prompts([probe.prompt(unique) for _ in range(batch)]), False))
            break
    shared = probe.prompt(length(min(_SHARED_TOKENS, room - most * rest)))
    if shared:
        kinds.append((prompts([shared] * most), True))
    return kinds


async def _longest_answers_first(
    probe: Probe, prompts: Sequence[Sequence[int]]
) -> list[Sequence[int]]:
    """Have the prompts cached, and sort them, so that small batches do not shrink.

    Raises:
        ValueError: No answer is longer than those that it is to be compared with.
    """
    _, completions = await probe.time(prompts, LONG_ANSWER)
    lengths = _lengths(completions)
    if max(lengths) <= SHORT_ANSWER:
        raise ValueError(
            f"no answer has more than {SHORT_ANSWER} tokens, so decode cannot be measured"
        )
    order = sorted(range(len(prompts)), key=lambda index: -lengths[index])
    return [prompts[index] for index in order]


def _lengths(completions: Sequence[Completion]) -> list[int]:
    return [len(completion.choices[0].token_ids) for completion in completions]
