"""When a request may be sent: connections, rate limits, pauses and further attempts.

Whatever a request waits for is counted in words, so that `session.waiting()` can tell.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from helium_agents.engines.openai.failures import TryAgain
from helium_agents.errors import TransientEngineError

T = TypeVar("T")

_back_off_s = wait_random_exponential(multiplier=0.5, max=30)


class Pacing:
    """Lets the requests of one event loop through, first come, first served.

    Args:
        max_connections: Most requests that are under way at once.
        requests_per_minute: Most requests a minute, or `None`. As many may go at once; after
            that they go evenly.
        tokens_per_minute: The same for tokens, each prompt's and the most of its answers.
    """

    def __init__(
        self,
        max_connections: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        self._slots = asyncio.Semaphore(max_connections)
        self._turn = asyncio.Lock()  # or a large request would be overtaken by small ones for ever
        self._requests = AsyncLimiter(requests_per_minute) if requests_per_minute else None
        self._tokens = AsyncLimiter(tokens_per_minute) if tokens_per_minute else None
        self._paused_until_s = 0.0
        self._waits: Counter[str] = Counter()

    @property
    def state(self) -> str:
        """What requests wait for here, in words; empty where none does."""
        return ", ".join(f"{what}: {number}" for what, number in self._waits.items() if number)

    async def persist(self, send: Callable[[], Awaitable[T]], num_tokens: int) -> T:
        """What `send` returns, which is called when it may be, and again where that may help.

        Args:
            send: Makes one attempt.
            num_tokens: How many tokens an attempt takes at most.

        Raises:
            TransientEngineError: The last attempt failed too.
        """

        async def attempt() -> T:
            await self._wait_for_turn(num_tokens)
            return await send()

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TryAgain),
            stop=lambda state: state.attempt_number >= _failure(state).most_attempts,
            wait=self._wait_s,
            sleep=self._sleep,
            reraise=True,
        )
        with self._waiting("wait for a connection"):
            await self._slots.acquire()
        try:
            return await retrying(attempt)
        except TryAgain as error:  # whose name nobody knows outside
            raise TransientEngineError(str(error)) from error.__cause__
        finally:
            self._slots.release()

    async def _wait_for_turn(self, num_tokens: int) -> None:
        loop = asyncio.get_running_loop()
        with self._waiting("wait for their turn by the rate limit"):
            async with self._turn:
                while (left_s := self._paused_until_s - loop.time()) > 0:
                    with self._waiting("wait as long as the server asked"):
                        await asyncio.sleep(left_s)
                if self._requests is not None:
                    await self._requests.acquire()
                if self._tokens is not None:
                    await self._tokens.acquire(min(num_tokens, self._tokens.max_rate))

    def _wait_s(self, state: RetryCallState) -> float:
        after_s = _failure(state).after_s
        if after_s is None:
            return _back_off_s(state)
        until_s = asyncio.get_running_loop().time() + after_s
        self._paused_until_s = max(self._paused_until_s, until_s)  # for all
        return 0.0

    async def _sleep(self, seconds: float) -> None:
        with self._waiting("wait before another attempt"):
            await asyncio.sleep(seconds)

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        self._waits[what] += 1
        try:
            yield
        finally:
            self._waits[what] -= 1


def _failure(state: RetryCallState) -> TryAgain:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, TryAgain)
    return error
