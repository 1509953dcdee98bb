"""How many rows to have open at once: everything, unless a limit is predicted to be clearly faster.

Each limit is simulated beside everything open, once with all of the KV cache and once with less of
it, since lengths are guesses and a limit that just fits falls off a cliff where it does not. What
counts is the worse of the two; a limit is chosen only for a gain of five percent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from helium_agents.optimizer.forecast import Forecast
from helium_agents.optimizer.simulate import SimulatedRoom, simulate

LEAST_GAIN: Final = 1.05
_SHARES: Final = (1 / 8, 1 / 6, 1 / 5, 1 / 4, 0.3, 0.35, 0.4, 0.5, 0.6)
_ROOM_SHARES: Final = (1.0, 0.85)
_AS_GOOD: Final = 0.01
"""Of limits that differ by less in their gain, the smallest is the safest."""


@dataclass(frozen=True)
class Choice:
    """A limit, and what was predicted.

    Args:
        max_open: Most rows that are open at once; `None` for all.
        gains: For each limit that was simulated, by how much it is faster than everything open.
    """

    max_open: int | None
    gains: dict[int, float] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """By how much the choice is predicted to be faster than everything open."""
        return 1.0 if self.max_open is None else self.gains[self.max_open]

    def explain(self) -> str:
        """The choice and the others, for a person."""
        shown = ", ".join(f"{limit}: {gain:.2f}" for limit, gain in self.gains.items())
        chosen = "everything open" if self.max_open is None else f"{self.max_open} rows open"
        return f"{chosen} (predicted gain by rows open: {shown})" if shown else chosen


def choose_limit(forecast: Forecast, room: SimulatedRoom) -> Choice:
    """The limit for the rows of a forecast on an engine."""
    num_rows = len(forecast.rows)
    touched = sum(forecast.piece_tokens)
    if num_rows < 2 or touched <= room.kv_tokens:
        return Choice(None)  # nothing is ever evicted
    limits = sorted({max(1, round(num_rows * share)) for share in _SHARES})
    gains = dict.fromkeys(limits, float("inf"))
    for share in _ROOM_SHARES:
        smaller = replace(room, kv_tokens=int(room.kv_tokens * share))
        everything_s = simulate(forecast, smaller)
        for limit in limits:
            gain = everything_s / simulate(forecast, smaller, limit)
            gains[limit] = min(gains[limit], gain)
    best = max(gains.values())
    if best < LEAST_GAIN:
        return Choice(None, gains)
    return Choice(min(k for k, gain in gains.items() if gain >= best - _AS_GOOD), gains)
