"""Where a call of LangChain's is made: the session that it is in, or none."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from typing import NamedTuple

from helium_agents.errors import SessionError
from helium_agents.graph.trace import Frame, check_effect, entered_frame, root_frame
from helium_agents.integrations.langgraph.work import WAITS_FOR_ITSELF
from helium_agents.runtime.calls import Calls


class SessionLoop(NamedTuple):
    """The event loop of a session.

    Attributes:
        loop: It.
        thread_id: The thread that it runs in.
        is_here: Whether the caller runs on it.
    """

    loop: AbstractEventLoop
    thread_id: int
    is_here: bool


def session_loop(*, is_sync: bool, frame: Frame | None = None) -> SessionLoop | None:
    """The event loop of the caller's session; `None` where there is no session.

    A thread to which a task has handed its context (a sync node of LangGraph's) is in the task's
    session.

    Args:
        is_sync: Whether the caller will wait without giving way.
        frame: A frame of the session, by default the caller's.

    Raises:
        SessionError: It would wait for its own event loop, or several sessions are open.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    frame = frame or entered_frame() or root_frame()
    runner = frame.runner
    if not isinstance(runner, Calls):
        check_effect(frame)
        return None
    if is_sync and runner.loop is running:
        raise SessionError(WAITS_FOR_ITSELF)
    return SessionLoop(runner.loop, runner.thread_id, runner.loop is running)
