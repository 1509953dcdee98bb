"""Who shares an engine with whom: many requests at once, or one alone.

One that is under suspicion of having killed the engine runs alone, so that the next death tells
whether it did.
"""

from __future__ import annotations

import asyncio


class Company:
    """A room for many, or for one alone.

    Who wants to be alone goes first: on a busy engine its turn would never come otherwise.
    """

    def __init__(self) -> None:
        self.num_inside = 0
        self._is_alone = False
        self._num_wanting_alone = 0
        self._waiting: list[asyncio.Future[None]] = []

    def try_enter(self, *, alone: bool) -> bool:
        """Enter if there is room at once, as there nearly always is; see `enter`."""
        if not self._has_room(alone):
            return False
        self._is_alone = alone
        self.num_inside += 1
        return True

    async def enter(self, *, alone: bool) -> None:
        """Wait until there is room, and enter; who has entered calls `leave`."""
        self._num_wanting_alone += alone
        try:
            while not self.try_enter(alone=alone):
                wake = asyncio.get_running_loop().create_future()
                self._waiting.append(wake)
                await wake
        except asyncio.CancelledError:
            self._wake()  # others may have waited for us only
            raise
        finally:
            self._num_wanting_alone -= alone

    def leave(self) -> None:
        """Make room."""
        self.num_inside -= 1
        self._is_alone = False
        self._wake()

    def _has_room(self, alone: bool) -> bool:
        if alone:
            return not self.num_inside
        return not self._is_alone and not self._num_wanting_alone

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            if not wake.done():
                wake.set_result(None)
