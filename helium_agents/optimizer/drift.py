"""Drift: whether a run does what its profile says, told from the first calls of each kind.

Short answers come first, so the first that come tell nothing of how short answers are. So the
first calls that are asked are watched: that they are longer shows as soon as some have come, that
they are shorter when all have.
"""

from __future__ import annotations

import math

from helium_agents.optimizer.distribution import Distribution
from helium_agents.optimizer.profile import MOST_TURNS, Profile

_WATCHED = 8
_LEAST = 4
_FACTOR = 1.5
_DEVIATIONS = 3.0
"""Of the mean of as many values as were measured."""

_LEAST_HELD_TOKENS = 4096
_LEAST_HIT_SHARE = 0.5


class _Cohort:
    """The first calls or rows of a kind: how large they were expected to be, and are."""

    def __init__(self, expected: Distribution) -> None:
        self._expected = expected
        self._waiting: set[int] = set()
        self._num_begun = 0
        self._values: list[float] = []

    def begin(self, which: int) -> None:
        if self._num_begun < _WATCHED:
            self._num_begun += 1
            self._waiting.add(which)

    def end(self, which: int, value: float | None) -> float | None:
        """Note a value, or that there is none; the mean of all where it is not as expected."""
        if which not in self._waiting:
            return None
        self._waiting.remove(which)
        if value is not None:
            self._values.append(value)
        number = len(self._values)
        if number < _LEAST or self._expected.number < _LEAST:
            return None
        mean = sum(self._values) / number
        spread = _DEVIATIONS * self._expected.deviation / math.sqrt(number)
        if mean > _FACTOR * self._expected.mean and mean > self._expected.mean + spread:
            return mean
        are_all = self._num_begun == _WATCHED and not self._waiting
        is_less = mean < self._expected.mean / _FACTOR and mean < self._expected.mean - spread
        return mean if are_all and is_less else None


class Drift:
    """Watches a run beside the profile by which it is planned.

    Args:
        profile: What is expected.

    Attributes:
        reason: What does not fit, in words; empty as long as all does.
    """

    def __init__(self, profile: Profile) -> None:
        self.reason = ""
        self._profile = profile
        self._prompts: dict[tuple[str, int], _Cohort] = {}
        self._outputs: dict[tuple[str, int], _Cohort] = {}
        self._rows = _Cohort(profile.calls)
        self._held_tokens = self._hit_tokens = 0

    def row_began(self, row: int) -> None:
        """A row made its first call."""
        self._rows.begin(row)

    def call_began(self, row: int, site: str, turn: int, prompt_tokens: int) -> None:
        """A row asked; how often it has asked there before is the turn."""
        expected = self._profile.sites.get(site)
        if self.reason or expected is None:
            return
        most = expected.calls_per_row.most
        if expected.calls_per_row.number >= _LEAST and turn >= _FACTOR * most + 1:
            self.reason = (
                f"{site} was called {turn + 1} times in a row, and {most:.0f} at most before"
            )
        if turn >= min(len(expected.turns), MOST_TURNS - 1):
            return
        key = site, turn
        if key not in self._prompts:
            self._prompts[key] = _Cohort(expected.turn(turn).prompt_tokens)
            self._outputs[key] = _Cohort(expected.turn(turn).output_tokens)
        self._outputs[key].begin(row)
        prompts = self._prompts[key]
        prompts.begin(row)
        mean = prompts.end(row, prompt_tokens)
        if mean is not None:
            usual = expected.turn(turn).prompt_tokens.mean
            self._note(f"prompts of {site} have {mean:.0f} tokens instead of {usual:.0f}")

    def call_ended(self, row: int, site: str, turn: int, output_tokens: int | None) -> None:
        """An answer has come; `None`: none will."""
        cohort = self._outputs.get((site, turn))
        mean = None if cohort is None else cohort.end(row, output_tokens)
        if mean is not None:
            usual = self._profile.sites[site].turn(turn).output_tokens.mean
            self._note(f"answers of {site} have {mean:.0f} tokens instead of {usual:.0f}")

    def row_ended(self, row: int, num_calls: int | None) -> None:
        """A row has ended; `None`: none of its calls was answered."""
        mean = self._rows.end(row, num_calls)
        if mean is not None:
            self._note(f"rows make {mean:.1f} calls instead of {self._profile.calls.mean:.1f}")

    def hit(self, held_tokens: int, cached_tokens: int) -> None:
        """A prompt began with what its row had computed before, while few rows were open.

        Args:
            held_tokens: So much of it.
            cached_tokens: What the engine had of it.
        """
        self._held_tokens += held_tokens
        self._hit_tokens += min(held_tokens, cached_tokens)
        share = self._hit_tokens / max(1, self._held_tokens)
        if self._held_tokens >= _LEAST_HELD_TOKENS and share < _LEAST_HIT_SHARE:
            self._note(f"of what rows had computed before, {share:.0%} was there still")

    def _note(self, reason: str) -> None:
        self.reason = self.reason or reason
