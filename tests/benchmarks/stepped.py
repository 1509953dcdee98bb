"""An engine whose speed is a known law, in a time of its own: an oracle for what measures engines.

It computes step by step as vLLM does (continuous batching, chunked prefill, a prefix cache of whole
blocks without a limit), and a step takes what the law says. Nothing waits in real time.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from helium_agents.engines.engine import Capacity, ChatMessage, Choice, Completion, Delta, Request
from helium_agents.engines.scripted import ScriptedEngine


@dataclass(frozen=True)
class Law:
    """Seconds of a step.

    Args:
        step_s: Of any step.
        idle_s: Of a step before which nothing ran, in addition.
        prefill_s: Of a prompt token, and `prefill_position_s` for each token before it.
        decode_s: Of an output token, and `unique_s` for each token before it that no other answer
            of the step has, `shared_s` for each that another one has too.
    """

    step_s: float = 0.003
    idle_s: float = 0.004
    prefill_s: float = 1.6e-4
    prefill_position_s: float = 9e-8
    decode_s: float = 2.2e-4
    unique_s: float = 5e-7
    shared_s: float = 1e-7


@dataclass(eq=False)
class _Open:
    """A request in work."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    future: asyncio.Future[Completion]
    cached: int = -1
    computed: int = 0
    produced: int = 0
    blocks: list[int] = field(default_factory=list)


class SteppedEngine(ScriptedEngine):
    """An engine that obeys a law.

    Args:
        law: Of its steps.
        capacity: What it holds; requests beyond `max_requests` wait, the cache has no limit.
        batched_tokens: Most tokens of a step.
        least_answer: Tokens of the shortest answer; the longest is a hundred times as long.
        jitter: A step takes up to this factor longer than the law says.

    Attributes:
        now: Its time in seconds.
        num_resets: How often its cache was emptied.
    """

    def __init__(
        self,
        law: Law,
        capacity: Capacity,
        *,
        batched_tokens: int = 2048,
        least_answer: int = 16,
        jitter: float = 0.0,
    ) -> None:
        super().__init__(capacity=capacity)
        self.law = law
        self.now = 0.0
        self.num_resets = 0
        self._batched_tokens = batched_tokens
        self._least_answer = least_answer
        self._jitter = jitter
        self._random = random.Random(7)
        self._waiting: list[_Open] = []
        self._running: list[_Open] = []
        self._blocks: dict[tuple[int, tuple[int, ...]], int] = {}
        self._stepping: asyncio.Task[None] | None = None

    def clock(self) -> float:
        """Its time."""
        return self.now

    async def reset_prefix_cache(self) -> None:
        """Forget all blocks."""
        self._blocks.clear()
        self.num_resets += 1

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        """One token a letter."""
        return [1, *(ord(letter) for message in messages for letter in message.content), 2]

    def answer(self, prompt: Sequence[int], max_tokens: int) -> tuple[int, ...]:
        """What it answers."""
        draw = random.Random(repr(list(prompt)))
        length = int(self._least_answer * 100 ** draw.random())
        return tuple(draw.choices(range(200, 1200), k=min(length, max_tokens)))

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        """Compute a request in its own time."""
        prompt = tuple(request.prompt_token_ids)
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        answer = self.answer(prompt, request.sampling.max_tokens)
        self._waiting.append(_Open(prompt, answer, future))
        if self._stepping is None:
            self._stepping = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while True:
            for _ in range(20):  # whoever was answered asks again before the next step
                await asyncio.sleep(0)
            if not self._waiting and not self._running:
                self._stepping = None
                return
            self._step()

    def _step(self) -> None:
        budget = self._batched_tokens
        owners = Counter(block for each in self._running for block in each.blocks)
        seconds = self.law.step_s + (0 if self._running else self.law.idle_s)
        for each in list(self._running):
            if each.computed == len(each.prompt):
                seconds += self._decode(each, owners)
                budget -= 1
        while self._waiting and len(self._running) < self._limit:
            self._running.append(self._waiting.pop(0))
        for each in self._running:
            if each.computed < len(each.prompt) and budget:
                if each.cached < 0:
                    each.cached = each.computed = self._match(each.prompt)
                tokens = min(len(each.prompt) - each.computed, budget)
                positions = (2 * each.computed + tokens - 1) * tokens / 2
                seconds += self.law.prefill_s * tokens + self.law.prefill_position_s * positions
                each.computed += tokens
                budget -= tokens
                each.blocks = self._add(each.prompt[: each.computed])
                if each.computed == len(each.prompt):
                    each.produced = 1
        self.now += seconds * (1 + self._jitter * self._random.random())
        for each in [each for each in self._running if each.produced == len(each.answer)]:
            self._running.remove(each)
            self._add((*each.prompt, *each.answer[:-1]))
            choice = Choice("", each.answer, "length")
            each.future.set_result(Completion((choice,), each.cached))

    @property
    def _limit(self) -> int:
        assert self.capacity is not None
        return self.capacity.max_requests

    def _decode(self, each: _Open, owners: Counter[int]) -> float:
        position = len(each.prompt) + each.produced - 1
        assert self.capacity is not None
        size = self.capacity.block_tokens
        shared = size * sum(1 for block in each.blocks if owners[block] > 1)
        each.produced += 1
        return (
            self.law.decode_s + self.law.shared_s * shared + self.law.unique_s * (position - shared)
        )

    def _match(self, prompt: tuple[int, ...]) -> int:
        assert self.capacity is not None
        size, block, matched = self.capacity.block_tokens, -1, 0
        while matched + size < len(prompt):
            found = self._blocks.get((block, prompt[matched : matched + size]))
            if found is None:
                break
            block, matched = found, matched + size
        return matched

    def _add(self, tokens: tuple[int, ...]) -> list[int]:
        assert self.capacity is not None
        size, block, chain = self.capacity.block_tokens, -1, []
        for end in range(size, len(tokens) + 1, size):
            key = (block, tokens[end - size : end])
            block = self._blocks.setdefault(key, len(self._blocks))
            chain.append(block)
        return chain
