"""Outside calls: those for which nothing is guessed, while models are asked for others early.

They win nothing by guesses, and are delayed by them: the budget has a limit on that.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import suppress

from helium_agents.optimizer.speculation_cost import Outside
from helium_agents.runtime.dispatch.dispatcher import Dispatcher

Done = asyncio.Task[None]


class OutsideCalls:
    """Those of a session, by the name of their model.

    Args:
        dispatcher: Knows how many are open, of which some are inside a body that is guessed in.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._inside: Counter[str | None] = Counter()
        self._open: Counter[str | None] = Counter()
        self._begun: Counter[str | None] = Counter()
        self._seconds: defaultdict[str | None, float] = defaultdict(float)
        self._taken_s = 0.0
        self._began_s: float | None = None
        self._changed_s = 0.0
        self._ended = asyncio.Event()

    def begin(self, model: str | None, task: Done, *, is_inside: bool) -> None:
        """A model is about to be asked, in a task that ends with the call."""
        if self._began_s is None:
            self._began_s = self._changed_s = asyncio.get_running_loop().time()
        if is_inside:
            self._inside[model] += 1
            task.add_done_callback(lambda _: self._inside.subtract((model,)))
        else:
            self._count()
            self._open[model] += 1
            self._begun[model] += 1
            task.add_done_callback(lambda _: self._end(model))

    def seen(self, model: str | None) -> Outside:
        """How many a model has, and usually has."""
        now_s = self._count()
        seconds, usual, usual_s = self._seconds[model], 0.0, 0.0
        if self._began_s is not None and now_s > self._began_s:
            usual = seconds / (now_s - self._began_s)
        if self._begun[model]:
            usual_s = seconds / self._begun[model]
        num_now = self._dispatcher.num_demanded(model) - self._inside[model]
        return Outside(num_now, usual, usual_s)

    async def next_end(self, most_s: float) -> bool:
        """Wait until one of them has ended, or for so long; whether one has."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._ended.wait()
            return True
        return False

    def take_seconds(self) -> float:
        """How long those took that began beside guesses, since this was asked last; the sum."""
        self._count()
        seconds = sum(self._seconds.values())
        taken_s, self._taken_s = seconds - self._taken_s, seconds
        return taken_s

    def _end(self, model: str | None) -> None:
        self._count()
        self._open[model] -= 1
        self._ended.set()  # for those who wait now
        self._ended.clear()

    def _count(self) -> float:
        """Count the time until now, which is returned."""
        now_s = asyncio.get_running_loop().time()
        for model, number in self._open.items():
            self._seconds[model] += number * (now_s - self._changed_s)
        self._changed_s = now_s
        return now_s
