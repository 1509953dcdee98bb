"""The engine in this process, which notes every request that it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count

from benchmarks.harness.calibration import MeasurableEngine
from benchmarks.harness.records import Sample, SentRequest
from helium_agents.engines.engine import (
    Capacity,
    ChatMessage,
    Choice,
    Completion,
    Delta,
    Request,
)
from helium_agents.engines.whole_engine import WholeEngine
from helium_agents.graph.sampling import Sampling
from helium_agents.optimizer.step_cost import StepCost


class RequestLog:
    """The requests of one run, and when its rows ended.

    Args:
        clock: In seconds; the run begins now.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.requests: list[SentRequest] = []
        self.row_ends_s: dict[int, float] = {}
        self._clock = clock
        self._start_s = clock()

    def now(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._start_s

    def end_row(self, number: int) -> None:
        """Note that a row is done now."""
        self.row_ends_s[number] = self.now()

    def row_times_s(self, arrivals_s: Sequence[float], num_rows: int) -> list[float]:
        """How long each row took since it arrived; none where not all were noted."""
        if len(self.row_ends_s) < num_rows:
            return []
        return [
            self.row_ends_s[number] - (arrivals_s[number] if arrivals_s else 0.0)
            for number in range(num_rows)
        ]

    def add(
        self, start_s: float, prompt_tokens: int, cached_tokens: int, output_tokens: int
    ) -> None:
        """Note a request that was sent at `start_s` and is answered now."""
        self.requests.append(
            SentRequest(start_s, self.now(), prompt_tokens, cached_tokens, output_tokens)
        )


class MeasuredEngine:
    """An engine that notes requests in `log`; an `Engine` itself."""

    follows_schemas = True
    takes_hints = True  # as the counting scheduler does, and the simulated one

    def __init__(self, engine: MeasurableEngine) -> None:
        self.log = RequestLog()
        self._engine = engine
        self._ids = count()

    @property
    def name(self) -> str:
        """The model's name."""
        return self._engine.name

    @property
    def capacity(self) -> Capacity | None:
        """What the engine holds."""
        return self._engine.capacity

    @property
    def cost(self) -> StepCost | None:
        """What a step takes, where the engine says so."""
        return WholeEngine(self._engine).cost

    @property
    def is_started(self) -> bool:
        """Whether it runs."""
        return self._engine.is_started

    def identity(self) -> str:
        """What decides its answers."""
        return self._engine.identity()

    async def start(self) -> None:
        """Start the engine."""
        await self._engine.start()

    async def close(self) -> None:
        """Stop the engine."""
        await self._engine.close()

    async def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes."""
        await self._engine.reset_prefix_cache()

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        """Token ids of a conversation."""
        return await self._engine.render(messages)

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        """Compute a request and note it."""
        start_s = self.log.now()
        completion = await self._engine.complete(request, on_delta)
        num_tokens = sum(len(choice.token_ids) for choice in completion.choices)
        self.log.add(start_s, len(request.prompt_token_ids), completion.cached_tokens, num_tokens)
        return completion

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The beginning of an answer."""
        return self._engine.truncate(choice, max_tokens)

    async def ask(self, messages: Sequence[ChatMessage], max_tokens: int) -> str:
        """Answer a conversation, as a program does that has only the engine."""
        return await self.ask_rendered(messages, await self.render(messages), max_tokens)

    async def ask_rendered(
        self, messages: Sequence[ChatMessage], token_ids: Sequence[int], max_tokens: int
    ) -> str:
        """Answer a conversation of which `render` has made tokens before."""
        sampling = Sampling(max_tokens=max_tokens)
        request = Request(f"ask-{next(self._ids)}", tuple(messages), token_ids, sampling)
        return (await self.complete(request)).choices[0].text

    async def sample(self) -> Sample:
        """What its scheduler told of the last steps; nothing where they are long ago."""
        windows = WholeEngine(self._engine).step_windows(time.monotonic() - _RECENTLY_S)
        if not windows:
            return Sample(round(self.log.now(), 3), 0, 0, 0.0)
        last = windows[-1]
        return Sample(
            round(self.log.now(), 3),
            round(last.running),
            round(last.waiting),
            round(last.kv_share, 4),
        )


_RECENTLY_S = 0.3
