"""Replays: how much of the event loop's time it may take to run bodies again for guesses.

A body that is run again does all its own work again, up to the call that is guessed: of an agent's
twenty turns that is ten times its work. Nobody else runs meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Generator
from functools import partial
from operator import sub
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_MOST_SHARE = 0.1
_MOST_SAVED_S = 0.1
"""What was not taken may be taken later, so much of it."""


class Replays:
    """What they take; made on the event loop."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._left_s = _MOST_SAVED_S
        self._seen_s = self._clock()
        self._began: tuple[float, float] | None = None  # while one computes, since it was counted

    @property
    def may_go_on(self) -> bool:
        """Whether there is time left for them."""
        self._count()
        now_s = self._clock()
        self._left_s = min(_MOST_SAVED_S, self._left_s + _MOST_SHARE * (now_s - self._seen_s))
        self._seen_s = now_s
        return self._left_s > 0.0

    @coroutine
    def timed(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """The value of some work; what it takes of the event loop's time is taken from theirs.

        Where time is virtual, nothing takes any; where the machine is busy, only what this thread
        has computed counts.
        """
        step = partial(work.send, None)
        while True:
            self._began = self._now
            try:
                wanted = step()
            except StopIteration as stop:
                value: T = stop.value
                return value
            finally:
                self._count()
                self._began = None
            try:
                step = partial(work.send, (yield wanted))
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:
                step = partial(work.throw, error)

    @property
    def _now(self) -> tuple[float, float]:
        return self._clock(), time.thread_time()

    def _count(self) -> None:
        if self._began is not None:
            before, self._began = self._began, self._now
            self._left_s -= min(map(sub, self._began, before))
