"""An event loop with a clock of its own: sleeping costs nothing, and a deadlock is seen at once.

Time passes only when nothing can run, and then jumps to the next timer. So a case has one order of
events, whatever else the machine does, and a program in which nothing can run and no timer is set
will never go on: `Deadlock`.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class Deadlock(BaseException):
    """Nothing can run, and nothing will wake the loop."""


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise Deadlock("nothing can run, and no timer is set")
        self.loop.now_s += max(timeout, 0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop without threads, whose time passes only while nothing can run."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now_s

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run it here and now: a thread would make the order of events a matter of chance."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future
