"""A session's token budget: what engines may compute, and what has been reserved of it."""

from __future__ import annotations

from helium_agents.engines.engine import Request
from helium_agents.errors import TokenBudgetExceeded


class TokenBudget:
    """Most prompt and output tokens that may be computed.

    A request reserves the most that it can use before it is sent and gives back what it did not
    use, so the limit is never exceeded and no answer is cut off by it.

    Attributes:
        reserved_tokens: By requests that have been sent.
    """

    def __init__(self, limit_tokens: int) -> None:
        self.reserved_tokens = 0
        self._limit_tokens = limit_tokens
        self._used_tokens = 0

    def reserve(self, request: Request) -> int:
        """How many tokens are reserved for a request.

        Raises:
            TokenBudgetExceeded: It does not fit in what is left.
        """
        sampling = request.sampling
        num_tokens = len(request.prompt_token_ids) + sampling.n * sampling.max_tokens
        left_tokens = self._limit_tokens - self._used_tokens
        if num_tokens > left_tokens - self.reserved_tokens:
            raise TokenBudgetExceeded(
                f"the next call may need {num_tokens} tokens, but {self._used_tokens} of the token "
                f"budget of {self._limit_tokens} are used, which leaves {left_tokens}: raise the "
                "budget to go on"
            )
        self.reserved_tokens += num_tokens
        return num_tokens

    def settle(self, reserved_tokens: int, used_tokens: int) -> None:
        """A request has ended, which may never have been sent."""
        self.reserved_tokens -= reserved_tokens
        self._used_tokens += used_tokens
