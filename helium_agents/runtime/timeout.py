"""The time that a waiter grants a call, counted from when the call begins to be computed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from helium_agents.errors import CallTimeout


class WaiterTimeout:
    """Ends waits once the time is up.

    Args:
        timeout_s: Seconds from `begin`.
        describe: Names the call, for the error.
    """

    __slots__ = ("_describe", "_is_up", "_timeout_s", "_timer")

    def __init__(self, timeout_s: float, describe: Callable[[], str]) -> None:
        self._timeout_s = timeout_s
        self._describe = describe
        self._timer: asyncio.TimerHandle | None = None
        self._is_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Start the clock."""
        self._timer = self._is_up.get_loop().call_later(self._timeout_s, set_done, self._is_up)

    def stop(self) -> None:
        """It is not needed any more."""
        if self._timer is not None:
            self._timer.cancel()

    def check(self) -> None:
        """See whether the time is up.

        Raises:
            CallTimeout: It is.
        """
        if self._is_up.done():
            raise CallTimeout(
                f"{self._describe()} did not finish within its timeout of {self._timeout_s} s"
            )

    async def wait_for(self, landed: asyncio.Future[None]) -> None:
        """Wait for a future.

        Raises:
            CallTimeout: The time was up first.
            BaseException: The future's own.
        """
        if landed.done():
            return landed.result()
        self.check()

        first: asyncio.Future[None] = landed.get_loop().create_future()

        def wake(_: asyncio.Future[None]) -> None:
            set_done(first)

        for each in (landed, self._is_up):
            each.add_done_callback(wake)
        try:
            await first
        finally:
            for each in (landed, self._is_up):
                each.remove_done_callback(wake)
        if landed.done():
            landed.result()
        else:
            self.check()


def set_done(future: asyncio.Future[None]) -> None:
    """Wake who waits for a future, if it is not done."""
    if not future.done():
        future.set_result(None)
