"""Settling: before the planner looks at the rows of a map, those that are about to come may come.

Rows are opened a few at a time, and each takes a while to make its first requests. Who looked at
the first of them would find that they all fit into the KV cache, and have them open; and so again
with the next ones, until all are open. Their prompts are rendered a few at a time, too, and of one
row alone they do not tell what all have in common.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

_LOOK_S, _PATIENCE_S, _MOST_S = 0.005, 0.1, 2.0
"""How often it is looked, for how long rows that may come are waited for after the last one, and
how long in all."""

_AHEAD_S = 0.1


class Rows(Protocol):
    """What is seen of a map's rows."""

    @property
    def num_rows(self) -> int:
        """How many are known."""
        ...

    @property
    def awaits_rows(self) -> bool:
        """Whether more may come."""
        ...

    @property
    def most_prompts(self) -> int:
        """How many prompts are looked at."""
        ...


class Settling:
    """Ends when all rows are known and their prompts come no more, or enough of either.

    What is sent meanwhile is no more than what keeps the engine busy, so that it loses little.

    Args:
        rows: What is seen of them.
        num_prompts: Tells how many prompts are rendered and not answered.
        on_look: Called now and then while it goes on.
        on_end: Called at its end.
    """

    def __init__(
        self,
        rows: Rows,
        num_prompts: Callable[[], int],
        on_look: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._rows = rows
        self._num_prompts_now = num_prompts
        self._on_look = on_look
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._began_s = self._grew_s = self._loop.time()
        self._num_rows, self._num_prompts = rows.num_rows, num_prompts()
        self._timer = self._loop.call_later(_LOOK_S, self._look)

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self._timer.cancel()

    @property
    def ahead_s(self) -> float:
        """For how long the prompts that the engine has been sent are to keep it busy, in all."""
        return self._loop.time() - self._began_s + _AHEAD_S

    def _look(self) -> None:
        now_s = self._loop.time()
        before = self._num_rows, self._num_prompts
        self._num_rows, self._num_prompts = self._rows.num_rows, self._num_prompts_now()
        if self._num_rows > before[0]:
            self._grew_s = now_s
        comes_more = self._num_rows > before[0] or (
            before[1] < min(self._num_prompts, self._rows.most_prompts)
        )
        is_patient = self._rows.awaits_rows and now_s - self._grew_s < _PATIENCE_S
        if (comes_more or is_patient) and now_s - self._began_s < _MOST_S:
            self._timer = self._loop.call_later(_LOOK_S, self._look)
            self._on_look()
        else:
            self._on_end()
