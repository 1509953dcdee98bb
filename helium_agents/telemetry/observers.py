"""Telling all who observe a session of its events: none of them breaks what it watches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from helium_agents.telemetry.events import Event, Observer

_ENDS_THE_PROGRAM = (KeyboardInterrupt, SystemExit)


class Observers:
    """Several observers as one; made on their event loop.

    Args:
        observers: Called with every event, in this order.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._loop = asyncio.get_running_loop()

    def __call__(self, event: Event) -> None:
        """Tell them all; what one raises goes to the event loop's handler."""
        for observer in self._observers:
            try:
                observer(event)
            except _ENDS_THE_PROGRAM as error:
                self._loop.call_soon(_raise, error)  # when the event is everywhere
            except BaseException as error:
                message = f"an observer of the session failed on {type(event).__name__}"
                self._loop.call_exception_handler({"message": message, "exception": error})


def _raise(error: BaseException) -> None:
    raise error
