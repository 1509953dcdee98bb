"""Which rows to have open at once: all, unless another policy is predicted to be clearly faster.

Each policy is simulated beside everything open, and where that is promising once more with less of
the KV cache, since lengths are guesses and a policy that just fits falls off a cliff where it does
not. What counts is the worse of the two; another policy is chosen only for a gain of five percent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from helium_agents.optimizer.expected import ExpectedSite, expected_sites
from helium_agents.optimizer.forecast import Forecast
from helium_agents.optimizer.policy import ALL_OPEN, AllOpen, AtMost, Peaks, PeaksFit, Policy
from helium_agents.optimizer.simulate import SimulatedRoom, held_tokens, simulate

LEAST_GAIN: Final = 1.05
_SHARES: Final = (1 / 8, 1 / 5, 0.3, 0.4, 0.6)
_TIGHTNESSES: Final = (0.85, 1.0, 1.3)
_SMALLER_SHARE: Final = 0.85
_AS_GOOD: Final = 0.01
"""Of policies that differ by less in their gain, the first is taken: it has the fewest open."""

NotCompared = Literal["all fits", "rows pause", "engine unknown", "unequal engines", "one row"]
"""Why nothing is compared; then everything is open."""


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
        why_not_compared: Why none were; `None` where some were.
    """

    policy: Policy = ALL_OPEN
    compared: tuple[Predicted, ...] = ()
    expected: tuple[ExpectedSite, ...] = ()
    why_not_compared: NotCompared | None = None

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
    rooms = (room, *room.others)
    if len({each.num_engines for each in rooms}) > 1:
        return Choice(expected=expected_sites(forecast), why_not_compared="unequal engines")
    ours = _share(forecast, room.num_engines)
    if _all_fits(ours, room):  # nothing is ever evicted
        return Choice(expected=expected_sites(ours), why_not_compared="all fits")
    if len(ours.rows) < 2:
        return Choice(expected=expected_sites(ours), why_not_compared="one row")
    policies = _portfolio(ours, room.each(lambda each: replace(each, num_engines=1)))
    runs = [simulate(ours, room, policy) for policy in policies]
    seconds = [run.seconds for run in runs]
    gains = [seconds[0] / each for each in seconds]
    if max(gains) >= LEAST_GAIN:
        smaller = room.each(_smaller)
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


def _all_fits(forecast: Forecast, room: SimulatedRoom) -> bool:
    """Whether the KV cache of each engine holds all that is computed on it."""
    return all(
        forecast.touched_tokens(engine) <= each.kv_tokens
        for engine, each in enumerate((room, *room.others))
    )


def _smaller(room: SimulatedRoom) -> SimulatedRoom:
    return replace(room, kv_tokens=int(room.kv_tokens * _SMALLER_SHARE))


def _portfolio(
    forecast: Forecast, room: SimulatedRoom, rows_per_engine: int | None = None
) -> list[Policy]:
    """What is compared, everything open first."""
    num_engines, num_rows = room.num_engines, rows_per_engine or len(forecast.rows)
    limits = sorted({max(1, round(num_rows * share)) for share in _SHARES})
    few_open = [AtMost(limit * num_engines) for limit in limits]
    first, *others = forecast.engines
    if others:
        return [ALL_OPEN, *few_open]
    asked = (room, *room.others)[first]
    peaks = Peaks(forecast, held_tokens(forecast, asked.block_tokens))
    kv_tokens = asked.kv_tokens * num_engines - peaks.common_tokens * (num_engines - 1)
    fitting = [PeaksFit(peaks, kv_tokens, tightness) for tightness in _TIGHTNESSES]
    return [ALL_OPEN, *few_open, *fitting]


def _share(forecast: Forecast, num_engines: int) -> Forecast:
    """The rows that one of several engines gets."""
    if num_engines == 1:
        return forecast
    rows = forecast.rows[::num_engines]
    return Forecast(rows, forecast.piece_tokens, forecast.items[::num_engines])
