"""What every kind of call checks first: that it is made on a running event loop."""

from __future__ import annotations

from asyncio import _get_running_loop

from helium_agents.errors import OffLoopCall


def check_on_loop(name: str) -> None:
    """Refuse a call from a thread or a synchronous program, where the trace would be lost.

    Raises:
        OffLoopCall: No event loop runs in this thread.
    """
    if _get_running_loop() is None:  # public in asyncio.events, and quicker than its sister
        raise OffLoopCall(
            f"{name}(...) was called where no event loop runs (a thread, or a synchronous "
            f"program). Call it from async code on the session's loop, or start the program with "
            f"helium_agents.run({name}, ...)"
        )
