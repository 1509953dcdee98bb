"""A bound on the tokens that a session may have computed, kept by reservation.

A request reserves the most it can use before it is sent and gives back what it did not use, so
the bound is never exceeded and no answer is cut off in the middle by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from helium_agents.errors import TokenBudgetExceeded


class TokenBudget:
    """Counts tokens against a limit.

    Args:
        limit_tokens: Prompt and output tokens in all; `None` for no limit.
    """

    def __init__(self, limit_tokens: int | None) -> None:
        self.limit_tokens = limit_tokens
        self.used_tokens = 0
        self._reserved_tokens = 0
        self._released = asyncio.Condition()

    @asynccontextmanager
    async def reserved(self, num_tokens: int) -> AsyncIterator[Callable[[int], None]]:
        """Hold `num_tokens` for a block, which reports what it used.

        Waits while other requests hold what would be needed.

        Raises:
            TokenBudgetExceeded: There is not enough left even with nothing else open.
        """
        if self.limit_tokens is None:
            yield self._spend
            return
        async with self._released:
            await self._released.wait_for(
                lambda: self._fits(num_tokens) or not self._reserved_tokens
            )
            if not self._fits(num_tokens):
                raise TokenBudgetExceeded(
                    f"the next call may need {num_tokens} tokens, but {self.used_tokens} of the "
                    f"token budget of {self.limit_tokens} are used: raise the budget to go on"
                )
            self._reserved_tokens += num_tokens
        try:
            yield self._spend
        finally:
            self._reserved_tokens -= num_tokens
            async with self._released:
                self._released.notify_all()

    def _fits(self, num_tokens: int) -> bool:
        assert self.limit_tokens is not None
        return self.used_tokens + self._reserved_tokens + num_tokens <= self.limit_tokens

    def _spend(self, num_tokens: int) -> None:
        self.used_tokens += num_tokens
