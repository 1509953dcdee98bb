"""The cost of an engine's step, as a function of what is computed in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from helium_agents.errors import RequestError

_MOST_S = 1000.0
"""Far beyond what any part of a step takes; a clock that counts much more loses the small ones."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is computed in one step.

    Args:
        decodes: Requests that get a further token.
        context_tokens: Tokens that these attend to, of all together.
        prefill_tokens: Prompt tokens that are computed.
        prefill_positions: Sum of the positions of these in their prompts, counted from 0.
    """

    decodes: int = 0
    context_tokens: int = 0
    prefill_tokens: int = 0
    prefill_positions: float = 0.0


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds that a step takes: a line in what is computed, with what a request costs besides.

    Measured on real engines it tells the time of whole runs to about ten percent.

    Args:
        step_s: Any step.
        decode_s: Each decode in it.
        context_s: Each token that a decode attends to.
        prefill_s: Each prompt token.
        position_s: Each position of a prompt token: attention grows with it.
        request_s: Each request on its way to the engine, one after another.
        reply_s: From the end of a step until whoever asked has acted on it.
    """

    step_s: float
    decode_s: float
    context_s: float
    prefill_s: float
    position_s: float
    request_s: float = 0.0
    reply_s: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (isinstance(value, int | float) and 0 <= value <= _MOST_S):
                raise RequestError(
                    f"{name}={value!r} of a step's cost must be seconds, from 0 to {_MOST_S:,.0f}"
                )

    def seconds(self, step: Step) -> float:
        """How long a step takes."""
        return (
            self.step_s
            + self.decode_s * step.decodes
            + self.context_s * step.context_tokens
            + self.prefill_s * step.prefill_tokens
            + self.position_s * step.prefill_positions
        )

    def prefill_seconds(self, num_tokens: float, start: float = 0) -> float:
        """What prompt tokens add to a step, where `start` come before them."""
        positions = num_tokens * (start + num_tokens / 2)
        return self.prefill_s * num_tokens + self.position_s * positions

    def as_dict(self) -> dict[str, float]:
        """By name, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StepCost:
        """What `as_dict` gave.

        Raises:
            RequestError: It is something else.
        """
        names = [each.name for each in fields(cls)]
        if not isinstance(values, Mapping):
            raise RequestError(f"the cost of a step is an object with {', '.join(names)}")
        if unknown := sorted(values.keys() - set(names)):
            raise RequestError(f"the cost of a step has no {unknown[0]!r}, only {', '.join(names)}")
        needed = [each.name for each in fields(cls) if each.default is MISSING]
        if missing := [name for name in needed if name not in values]:
            raise RequestError(f"the cost of a step lacks {', '.join(missing)}")
        return cls(**values)


STEP_COSTS: dict[str, StepCost] = {
    "cpu-small": StepCost(3.6e-3, 0.127e-3, 306e-9, 74e-6, 61e-9, 1.5e-3, 2.5e-3),
    "cpu-medium": StepCost(12e-3, 0.57e-3, 0.7e-6, 560e-6, 273e-9, 2e-3, 3e-3),
    "h100-8b": StepCost(7e-3, 0.02e-3, 44e-9, 33e-6, 1.5e-9, 0.3e-3, 1e-3),
}
"""By name: two that were measured on two CPU cores in float32 (4 layers of width 256, 8 of 512),
and a guess of an 8B model on an H100."""
