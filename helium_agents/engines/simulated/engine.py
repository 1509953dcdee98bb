"""The simulated engine: the engine port over vLLM's scheduler, in virtual time.

The whole runtime runs on it as on a real engine. Requests arrive one after another, steps take what
their cost says, and answers come when their last step ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from helium_agents.engines.engine import (
    Capacity,
    ChatMessage,
    Choice,
    Completion,
    Delta,
    OnDelta,
    Request,
)
from helium_agents.engines.random_model import random_model_dir
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.simulated.scheduler import Progress, SimulatedScheduler
from helium_agents.errors import EngineDied, RequestError
from helium_agents.optimizer.step_cost import Step, StepCost
from helium_agents.optimizer.step_window import StepWindow, is_same_window, joined, window_of


@dataclass
class SimulatedCounts:
    """What an engine has computed.

    Args:
        steps: Steps that computed something.
        requests: Requests in them, summed.
        prefill_tokens: Prompt tokens that were computed, again after a preemption too.
        busy_s: Seconds in steps.
    """

    steps: int = 0
    requests: int = 0
    prefill_tokens: int = 0
    busy_s: float = 0.0


_MOST_WINDOWS = 2048

Answer = Callable[[Request], Sequence[int] | int]
"""The token ids that a request is answered with, or only how many."""


class SimulatedEngine:
    """vLLM without a model, in virtual time; see `virtual_time.run_in_virtual_time`.

    Args:
        cost: What a step takes.
        held: What the engine holds.
        answer: How a request is answered; by default with `max_tokens` tokens.
        name: What a person calls it.

    Attributes:
        counts: What it has computed since it was started.
    """

    takes_hints = True

    def __init__(
        self,
        cost: StepCost,
        held: Capacity,
        answer: Answer | None = None,
        *,
        name: str = "simulated",
    ) -> None:
        self.cost = cost
        self._held = held
        self.counts = SimulatedCounts()
        self._answer = answer or _longest
        self.name = name
        self._scheduler: SimulatedScheduler | None = None
        self._text = ScriptedEngine(keep_requests=False)
        self._waiting: dict[str, _Waiter] = {}
        self._windows: deque[StepWindow] = deque(maxlen=_MOST_WINDOWS)
        self._is_stepping = False
        self._free_s = 0.0  # when the next request can be on its way

    @property
    def capacity(self) -> Capacity | None:
        """What it holds, once started."""
        return None if self._scheduler is None else self._held

    @property
    def is_started(self) -> bool:
        """Whether it was started and not closed since."""
        return self._scheduler is not None

    def identity(self) -> str:
        """Of all simulated engines the same: their answers mean nothing."""
        return f"simulated:{self.name}"

    async def start(self) -> None:
        """Make the scheduler. Idempotent."""
        if self._scheduler is None:
            self._scheduler = SimulatedScheduler(self._held, str(random_model_dir()))
            self.counts = SimulatedCounts()

    async def close(self) -> None:
        """Drop the scheduler. Idempotent."""
        self._scheduler = None

    async def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes, and what was counted."""
        if self._scheduler is not None:
            self._scheduler.reset_prefix_cache()
        self.counts = SimulatedCounts()

    def step_windows(self, since_s: float) -> list[StepWindow]:
        """What it computed since a time."""
        found = list(takewhile(lambda window: window.end_s > since_s, reversed(self._windows)))
        return found[::-1]

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        """One token for each word, and one for each role."""
        return await self._text.render(messages)

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The first tokens."""
        return Choice("", choice.token_ids[:max_tokens], "length")

    def piece(self, request: Request, number: int) -> str:
        """What the n-th token of an answer, from 0, adds to its text; nothing by itself."""
        return ""

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        """Answer when its last step ends.

        Raises:
            RequestError: It does not fit into the engine.
        """
        if self._scheduler is None:
            raise RequestError("the simulated engine was asked before it was started")
        answer = self._answer(request)
        tokens = [7] * answer if isinstance(answer, int) else list(answer)
        num_tokens = len(request.prompt_token_ids) + len(tokens)
        most = min(self._held.max_model_tokens, self._held.kv_tokens)
        if not tokens or num_tokens > most:
            raise RequestError(
                f"a request of {num_tokens} tokens, its answer included, does not fit into the "
                f"{most} tokens that the simulated engine holds"
            )
        loop = asyncio.get_running_loop()
        waiter = self._waiting[request.request_id] = _Waiter(
            request, tokens, loop.create_future(), on_delta
        )
        self._free_s = max(self._free_s, loop.time()) + self.cost.request_s
        loop.call_at(self._free_s, self._arrive, waiter)
        try:
            await waiter.done
        finally:
            del self._waiting[request.request_id]
            if self._scheduler is not None:
                self._scheduler.abort(request.request_id)  # if it is still there
        choice = Choice("", tuple(tokens), "length")
        first_s = waiter.first_token_s
        return Completion(
            (choice,), waiter.cached_tokens, first_s, begun_s=waiter.begun_s, read_s=first_s
        )

    def _arrive(self, waiter: _Waiter) -> None:
        if waiter.done.done() or self._scheduler is None:
            return
        request = waiter.request
        self._scheduler.add(
            request.request_id,
            request.prompt_token_ids,
            waiter.tokens,
            arrival_s=asyncio.get_running_loop().time(),
            priority=request.priority,
            hints=request.hints,
        )
        if not self._is_stepping:
            # all that arrive at this moment are in the first step
            self._is_stepping = True
            asyncio.get_running_loop().call_soon(self._begin_step)

    def _begin_step(self) -> None:
        scheduler = self._scheduler
        try:
            begun = None if scheduler is None else scheduler.begin_step()
        except Exception as error:
            self._die(error)
            return
        if scheduler is None or begun is None:
            self._is_stepping = False
            return
        step, output = begun
        seconds = self.cost.seconds(step)
        self.counts.steps += 1
        self.counts.requests += len(output.num_scheduled_tokens)
        self.counts.prefill_tokens += step.prefill_tokens
        self.counts.busy_s += seconds
        loop = asyncio.get_running_loop()
        for request_id in scheduler.begun_in(output):
            if request_id in self._waiting:
                self._waiting[request_id].begun_s = loop.time()
        self._note(window_of(step, scheduler.load, loop.time(), loop.time() + seconds))
        loop.call_later(seconds, self._end_step, step, output)

    def _note(self, window: StepWindow) -> None:
        if self._windows and is_same_window(self._windows[-1], window):
            window = joined(self._windows.pop(), window)
        self._windows.append(window)

    def _end_step(self, step: Step, output: Any) -> None:
        if self._scheduler is None:
            self._is_stepping = False
            return
        try:
            progress = self._scheduler.end_step(step, output)
        except Exception as error:
            self._die(error)
            return
        self._deliver(progress)
        self._begin_step()

    def _die(self, error: Exception) -> None:
        """The scheduler failed: so does everybody who waits for it."""
        self._scheduler, self._is_stepping = None, False
        for waiter in self._waiting.values():
            if not waiter.done.done():
                died = EngineDied(f"vLLM's scheduler failed: {error!r}")
                died.__cause__ = error
                waiter.done.set_exception(died)

    def _deliver(self, progress: Progress) -> None:
        loop = asyncio.get_running_loop()
        for request_id, cached_tokens in progress.first.items():
            waiter = self._waiting.get(request_id)
            if waiter is not None and waiter.first_token_s is None:
                waiter.first_token_s = loop.time()
                waiter.cached_tokens = cached_tokens
        for request_id in progress.given:
            waiter = self._waiting.get(request_id)
            if waiter is not None and waiter.on_delta is not None:
                piece = self.piece(waiter.request, waiter.num_given)
                waiter.num_given += 1
                if piece:
                    waiter.on_delta(Delta(0, piece))
        for request_id in progress.finished:
            waiter = self._waiting.get(request_id)
            if waiter is not None:
                loop.call_later(self.cost.reply_s, waiter.wake)


@dataclass
class _Waiter:
    """Who waits for an answer."""

    request: Request
    tokens: list[int]
    done: asyncio.Future[None]
    on_delta: OnDelta | None
    num_given: int = 0
    begun_s: float | None = None
    first_token_s: float | None = None
    cached_tokens: int = 0

    def wake(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


def _longest(request: Request) -> int:
    return request.sampling.max_tokens
