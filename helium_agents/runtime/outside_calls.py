"""Outside calls: those for which nothing is guessed, while models are asked for others early.

They win nothing by guesses, and wrong ones delay them: the budget has a limit on that.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from helium_agents.runtime.dispatcher import Dispatcher

Done = asyncio.Task[None]


class OutsideCalls:
    """Those of a session, by the name of their model.

    Args:
        dispatcher: Knows how many are open, of which some are inside a body that is guessed in.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._inside: Counter[str | None] = Counter()
        self._num_open = 0
        self._seconds = self._taken_s = 0.0
        self._began_s: float | None = None
        self._changed_s = 0.0

    def begin(self, model: str | None, task: Done, *, is_inside: bool) -> None:
        """A model is about to be asked, in a task that ends with the call."""
        if self._began_s is None:
            self._began_s = self._changed_s = asyncio.get_running_loop().time()
        if is_inside:
            self._inside[model] += 1
            task.add_done_callback(lambda _: self._inside.subtract((model,)))
        else:
            self._change(1)
            task.add_done_callback(lambda _: self._change(-1))

    def num_open(self, model: str | None) -> float:
        """How many a model has, or as many as there are on average if that is more."""
        now_s = self._change(0)
        average = 0.0
        if self._began_s is not None and now_s > self._began_s:
            average = self._seconds / (now_s - self._began_s)
        return max(average, self._dispatcher.num_demanded(model) - self._inside[model])

    def take_seconds(self) -> float:
        """How long those took that began beside guesses, since this was asked last; the sum."""
        self._change(0)
        seconds, self._taken_s = self._seconds - self._taken_s, self._seconds
        return seconds

    def _change(self, number: int) -> float:
        now_s = asyncio.get_running_loop().time()
        self._seconds += self._num_open * (now_s - self._changed_s)
        self._changed_s = now_s
        self._num_open += number
        return now_s
