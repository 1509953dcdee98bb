"""Running until done or told to stop: Ctrl-C and SIGTERM end a run cleanly.

The first signal cancels the run, which aborts its open calls and stops its engine; a second one
raises `KeyboardInterrupt` wherever the program is. SIGQUIT (Ctrl-Backslash) ends nothing: it prints
what waits for what, and the run goes on.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A signal ended the run; its clean-up is done."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


def run_until_stopped(
    work: Coroutine[Any, Any, T],
    on_stop: Callable[[], None] = lambda: None,
    *,
    waiting: Callable[[], str] | None = None,
) -> T:
    """Run a coroutine in an event loop of its own.

    Args:
        work: What to run.
        on_stop: Called on the event loop at the first signal, before the clean-up.
        waiting: Says what waits for what, at each SIGQUIT.

    Raises:
        Stopped: A signal came.
    """
    received: list[int] = []

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop() -> None:
            on_stop()
            task.cancel()

        # not loop.add_signal_handler: a workflow that blocks the loop must be stoppable too
        def handle(number: int, frame: FrameType | None) -> None:
            received.append(number)
            if len(received) > 1:
                raise KeyboardInterrupt
            loop.call_soon_threadsafe(stop)

        for number in _STOPPING:
            signal.signal(number, handle)
        if waiting is not None:
            # not by click.echo, which finds its way around the progress bar's stand-in for stderr
            loop.add_signal_handler(signal.SIGQUIT, lambda: print(waiting(), file=sys.stderr))
        return await work

    previous = {number: signal.getsignal(number) for number in (*_STOPPING, signal.SIGQUIT)}
    try:
        return asyncio.run(cancellable())
    except BaseException:
        if received:  # whatever the clean-up raised, this is why
            raise Stopped(received[0]) from None
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
