"""What a session tells of its guesses: whether it agrees with itself, and with the summary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helium_agents.telemetry.events import CallSettled, Guessed, Speculated
from helium_agents.telemetry.summary import Summary


class Told:
    """An observer that keeps what is told of guesses, and of the calls that they are of."""

    def __init__(self) -> None:
        self._settled: list[CallSettled] = []
        self._speculated: list[Speculated] = []
        self._guessed: list[Guessed] = []

    def __call__(self, event: Any) -> None:
        match event:
            case CallSettled():
                self._settled.append(event)
            case Speculated():
                self._speculated.append(event)
            case Guessed():
                self._guessed.append(event)

    def problems(self, summary: Summary) -> Iterator[str]:
        """What is wrong with it, once the session is closed."""
        settled = {each.call for each in self._settled}
        answered = [each.call for each in self._settled if each.error is None]
        if len({*answered}) < len(answered):
            yield "told: a call is answered twice"
        used = [each for each in self._speculated if each.is_used]
        if not {each.call for each in used} <= settled:
            yield "told: a call that never ended was computed early"
        if not {each.call for each in self._guessed} <= settled:
            yield "told: something was guessed of a call that never ended"
        for each in self._speculated:
            is_wasted = not each.is_used and not each.call and not each.saved_s
            if not (each.is_used and each.call and not each.wasted_tokens) and not is_wasted:
                yield f"told: {each}"
            if each.saved_s < 0 or each.wasted_tokens < 0 or not 0 <= each.probability <= 1:
                yield f"told: {each}"
        for guess in self._guessed:
            if (guess.is_right is None) != (not guess.source) or not 0 <= guess.probability <= 1:
                yield f"told: {guess}"
            if guess.is_right is None and not guess.why:
                yield f"told: nothing was guessed, and no reason is told: {guess}"
        counts = summary.num_early, summary.num_given_up
        if counts != (len(used), len(self._speculated) - len(used)):
            yield f"told: the summary has {counts}"
