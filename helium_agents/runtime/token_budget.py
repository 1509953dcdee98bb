"""A bound on the tokens that a session may have computed, kept by reservation.

A request reserves the most it can use before it is sent and gives back what it did not use, so
the bound is never exceeded and no answer is cut off in the middle by it.
"""

from __future__ import annotations

import asyncio

from helium_agents.errors import TokenBudgetExceeded


class TokenBudget:
    """Counts tokens against a limit.

    Args:
        limit_tokens: Prompt and output tokens in all; `None` for no limit.

    Attributes:
        used_tokens: What released reservations have used.
    """

    def __init__(self, limit_tokens: int | None) -> None:
        self.limit_tokens = limit_tokens
        self.used_tokens = 0
        self._reserved_tokens = 0
        self._waiting: list[asyncio.Future[None]] = []

    def try_reserve(self, num_tokens: int) -> bool:
        """Hold `num_tokens` if they are there at once; see `reserve`."""
        if self.limit_tokens is not None and not self._fits(num_tokens):
            return False
        self._reserved_tokens += num_tokens
        return True

    async def reserve(self, num_tokens: int) -> None:
        """Hold `num_tokens` until `release`; waits while others hold what would be needed.

        Raises:
            TokenBudgetExceeded: There is not enough left even with nothing else open.
        """
        while not self.try_reserve(num_tokens):
            if not self._reserved_tokens:
                raise TokenBudgetExceeded(
                    f"the next call may need {num_tokens} tokens, but {self.used_tokens} of the "
                    f"token budget of {self.limit_tokens} are used, which leaves "
                    f"{(self.limit_tokens or 0) - self.used_tokens}: raise the budget to go on"
                )
            wake = asyncio.get_running_loop().create_future()
            self._waiting.append(wake)
            await wake

    def release(self, num_tokens: int, *, used_tokens: int) -> None:
        """Give back what was reserved, of which so much was used."""
        self._reserved_tokens -= num_tokens
        self.used_tokens += used_tokens
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for wake in waiting:
                if not wake.done():
                    wake.set_result(None)

    def _fits(self, num_tokens: int) -> bool:
        assert self.limit_tokens is not None
        return self.used_tokens + self._reserved_tokens + num_tokens <= self.limit_tokens
