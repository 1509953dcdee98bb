"""Ageing: no request waits for ever, whatever the schedule.

A schedule may always have something that goes before a request. So each time that so many others
were sent since the oldest one came, that one goes. Of a request that has p others before it when it
comes, no more than `EVERY` * (p + 1) are sent before it.
"""

from __future__ import annotations

from typing import Final

EVERY: Final = 256
"""So seldom that it costs a schedule nothing: now and then one prompt is computed again."""


class Ageing:
    """Counts what is sent past the request that has waited longest."""

    def __init__(self) -> None:
        self._num_sent = self._last = 0

    @property
    def num_sent(self) -> int:
        """How many were sent, by which a request remembers when it came."""
        return self._num_sent

    def is_overdue(self, came: int) -> bool:
        """Whether the oldest request, which came after so many were sent, goes next."""
        return self._num_sent - max(came, self._last) >= EVERY - 1

    def sent(self, *, is_oldest: bool) -> None:
        """A request is sent."""
        self._num_sent += 1
        if is_oldest:
            self._last = self._num_sent
