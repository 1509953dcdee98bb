"""What calls to come will begin with: how much of what a call leaves in the KV cache is of use.

An engine evicts what was used longest ago, which may be what the next call of a row begins with,
while what an ended one left stays. Where the calls of rows are known, so is what is of use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable

from helium_agents.optimizer.forecast import Forecast, ForecastCall

SPARE_SHARE = 0.05
"""Lengths are guesses, and what is kept in vain costs less than what is computed again."""


class Coming:
    """The calls of a forecast that have not been sent.

    What at least half of the rows have in common counts as of use always, since rows may follow of
    which nothing is known.

    Args:
        forecast: The rows.
        sent: Questions that were sent before.
    """

    def __init__(self, forecast: Forecast, sent: Collection[Hashable] = ()) -> None:
        self._tokens = forecast.piece_tokens
        self._calls: dict[Hashable, ForecastCall] = {}
        num_rows: Counter[int] = Counter()
        for row in forecast.rows:
            num_rows.update({piece for call in row for piece in call.prompt})
            self._calls.update((call.question, call) for call in row)
        half = max(2.0, len(forecast.rows) / 2)
        self._common = {piece for piece, number in num_rows.items() if number >= half}
        self._wanted = Counter(
            piece
            for question, call in self._calls.items()
            if question not in sent
            for piece in call.prompt
        )
        self._sent = set(sent)

    def send(self, question: Hashable) -> None:
        """A call is sent."""
        call = self._calls.get(question)
        if call is not None and question not in self._sent:
            self._sent.add(question)
            self._wanted.subtract(call.prompt)

    def used_tokens(self, question: Hashable, prompt_tokens: int) -> int | None:
        """How many of the first tokens of a call's prompt and answer others will begin with.

        Args:
            question: The call.
            prompt_tokens: How long its prompt really is.

        Returns:
            `None` where nothing is known of it, or it may be all of them.
        """
        call = self._calls.get(question)
        if call is None:
            return None
        tokens = 0
        for piece in (*call.prompt, *call.answer):
            if not self._wanted[piece] and piece not in self._common:
                scale = prompt_tokens / max(1, call.prompt_tokens)
                return round(tokens * scale * (1 + SPARE_SHARE))
            tokens += self._tokens[piece]
        return None
