"""Where a call of LangChain's is made: the session that it is in, or none."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop

from helium_agents.errors import SessionError
from helium_agents.graph.trace import entered_frame, root_frame


def session_loop(*, is_sync: bool) -> AbstractEventLoop | None:
    """The event loop of the caller's session; `None` where there is no session.

    A thread to which a task has handed its context (a sync node of LangGraph's) is in the task's
    session.

    Args:
        is_sync: Whether the caller will wait without giving way.

    Raises:
        SessionError: It would wait for its own event loop, or several sessions are open.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    frame = entered_frame() or root_frame()
    loop: AbstractEventLoop | None = getattr(frame.runner, "loop", None)
    if loop is None:
        return None
    if is_sync and loop is running:
        raise SessionError(
            "ChatHelium was called without await in the event loop of its session, which would "
            "wait for itself: use ainvoke, astream or abatch there, or call it in a thread "
            "(asyncio.to_thread)"
        )
    return loop
