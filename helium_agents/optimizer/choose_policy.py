"""Which rows to have open at once: all, unless another policy is predicted to be clearly faster.

Each policy is simulated beside everything open, and where that is promising once more with less of
the KV cache, since lengths are guesses and a policy that just fits falls off a cliff where it does
not. What counts is the worse of the two; another policy is chosen only for a gain of five percent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from helium_agents.optimizer.expected import ExpectedSite, expected_sites
from helium_agents.optimizer.forecast import Forecast
from helium_agents.optimizer.policy import ALL_OPEN, AllOpen, AtMost, Peaks, PeaksFit, Policy
from helium_agents.optimizer.simulate import SimulatedRoom, held_tokens, simulate

LEAST_GAIN: Final = 1.05
_SHARES: Final = (1 / 8, 1 / 5, 0.3, 0.4, 0.6)
_TIGHTNESSES: Final = (0.85, 1.0, 1.3)
_SMALLER: Final = (0.85,)
_AS_GOOD: Final = 0.01
"""Of policies that differ by less in their gain, the first is taken: it has the fewest open."""


@dataclass(frozen=True)
class Predicted:
    """What was predicted of a policy.

    Args:
        policy: The policy.
        seconds: How long the rows of the forecast take under it.
        gain: By how much it is faster than everything open, on less room too.
    """

    policy: Policy
    seconds: float
    gain: float


@dataclass(frozen=True)
class Choice:
    """A policy, and what was predicted.

    Args:
        policy: The one that is chosen.
        compared: All that were simulated, everything open first; empty where there was nothing to
            choose.
        expected: What is expected of each call site under that policy.
    """

    policy: Policy = ALL_OPEN
    compared: tuple[Predicted, ...] = ()
    expected: tuple[ExpectedSite, ...] = ()

    @property
    def gain(self) -> float:
        """By how much the choice is predicted to be faster than everything open."""
        return self._chosen.gain if self.compared else 1.0

    @property
    def predicted_s(self) -> float | None:
        """How long the rows of the forecast are predicted to take; `None` where nothing was."""
        return self._chosen.seconds if self.compared else None

    @property
    def _chosen(self) -> Predicted:
        return next(each for each in self.compared if each.policy is self.policy)

    def explain(self) -> str:
        """The choice, the others, and why, for a person."""
        if not self.compared:
            return str(self.policy)
        shown = ", ".join(
            f"{each.policy} {each.seconds:.3g} s ({each.gain:.2f})" for each in self.compared
        )
        why = f"no other is predicted to be {LEAST_GAIN:g} times as fast"
        if not isinstance(self.policy, AllOpen):
            why = f"predicted to be {self.gain:.2f} times as fast as everything open"
        return f"{self.policy}: {why} (predicted time and gain: {shown})"


def choose_policy(forecast: Forecast, room: SimulatedRoom) -> Choice:
    """The policy for the rows of a forecast on one engine or several."""
    ours = _share(forecast, room.num_engines)
    if len(ours.rows) < 2 or sum(ours.piece_tokens) <= room.kv_tokens:
        return Choice(expected=expected_sites(ours))  # nothing is ever evicted
    policies = _portfolio(ours, replace(room, num_engines=1))
    runs = [simulate(ours, room, policy) for policy in policies]
    seconds = [run.seconds for run in runs]
    gains = [seconds[0] / each for each in seconds]
    for share in _SMALLER:
        if max(gains) < LEAST_GAIN:
            break
        smaller = replace(room, kv_tokens=int(room.kv_tokens * share))
        all_open_s = simulate(ours, smaller).seconds
        for index, policy in enumerate(policies):
            if gains[index] >= LEAST_GAIN:
                seconds_s = simulate(ours, smaller, policy).seconds
                gains[index] = min(gains[index], all_open_s / seconds_s)
    if room.num_engines > 1:
        policies = _portfolio(forecast, room, len(ours.rows))
    compared = tuple(map(Predicted, policies, seconds, gains))
    best = max(gains)
    chosen = 0
    if best >= LEAST_GAIN:
        chosen = next(index for index, gain in enumerate(gains) if gain >= best - _AS_GOOD)
    expected = expected_sites(ours, runs[chosen].calls)
    return Choice(policies[chosen], compared, expected)


def _portfolio(
    forecast: Forecast, room: SimulatedRoom, rows_per_engine: int | None = None
) -> list[Policy]:
    """What is compared, everything open first."""
    num_engines, num_rows = room.num_engines, rows_per_engine or len(forecast.rows)
    limits = sorted({max(1, round(num_rows * share)) for share in _SHARES})
    peaks = Peaks(forecast, held_tokens(forecast, room.block_tokens))
    kv_tokens = room.kv_tokens * num_engines - peaks.common_tokens * (num_engines - 1)
    fitting = [PeaksFit(peaks, kv_tokens, tightness) for tightness in _TIGHTNESSES]
    return [ALL_OPEN, *(AtMost(limit * num_engines) for limit in limits), *fitting]


def _share(forecast: Forecast, num_engines: int) -> Forecast:
    """The rows that one of several engines gets, and what they touch."""
    if num_engines == 1:
        return forecast
    rows = forecast.rows[::num_engines]
    touched = {p for row in rows for call in row for p in (*call.prompt, *call.answer)}
    tokens = [each if p in touched else 0 for p, each in enumerate(forecast.piece_tokens)]
    return Forecast(rows, tokens, forecast.items[::num_engines])
