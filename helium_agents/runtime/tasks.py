"""The tasks of a session: one supervisor owns them all, and none outlives it.

What `asyncio.TaskGroup` does, for children whose errors never reach the group: they belong to the
Refs that asked. One callback a task in place of three, since a session starts two tasks a call.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from contextvars import Context, copy_context
from typing import Any, Literal

from helium_agents.errors import SessionError
from helium_agents.graph.concurrently import ended, error_of

OnDone = Callable[[BaseException | None], None]
"""Called when a task has ended, with what it raised; `None` if it returned, or was cancelled."""


class Tasks:
    """Tasks that are cancelled, and waited for, together; made on their event loop.

    Attributes:
        loop: That event loop.
        context: Where they run, each in a copy.
        is_open: Whether the session has not begun to close.
        resources: What is closed after the last of them.
        supervisor: Ends when all is closed.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.context = copy_context()
        self.is_open = True
        self.resources = AsyncExitStack()
        self._on_done: dict[asyncio.Task[None], OnDone | None] = {}
        self._callback = self._end
        self._closing = asyncio.Event()
        self.supervisor = self.loop.create_task(self._supervise())

    def __contains__(self, task: object) -> bool:
        return task in self._on_done

    @property
    def state(self) -> Literal["open", "closing", "closed"]:
        """How far the session is."""
        if self.is_open:
            return "open"
        return "closed" if self.supervisor.done() else "closing"

    def check_open(self) -> None:
        """Raise `SessionError` unless the session is open and on this event loop."""
        if not self.is_open:
            raise not_open(self.state)
        if _get_running_loop() is not self.loop:
            raise SessionError("this belongs to a session of another event loop")

    def spawn(
        self,
        work: Coroutine[Any, Any, None],
        on_done: OnDone | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[None]:
        """Start a task.

        Args:
            work: What it does.
            on_done: Called when it has ended, also if it was cancelled before it began. Without it
                the work must not raise.
            context: Where; by default in that of the session.
        """
        context = (context or self.context).copy()
        task = self.loop.create_task(work, context=context)
        self._on_done[task] = on_done
        task.add_done_callback(self._callback)
        return task

    def begin_to_close(self) -> None:
        """Let the supervisor cancel all, wait for their clean-up, and close the resources."""
        self.is_open = False
        self._closing.set()

    async def close(self) -> None:
        """The same, and wait until it is done, even if cancelled meanwhile.

        Raises:
            BaseException: What a resource raised when it was closed.
        """
        self.begin_to_close()
        await ended([self.supervisor])
        if not self.supervisor.cancelled():
            self.supervisor.result()

    async def _supervise(self) -> None:
        async with self.resources:
            try:
                await self._closing.wait()
            finally:
                await self._end_all()

    async def _end_all(self) -> None:
        """Cancel all and wait for their clean-up, and for what that starts."""
        while self._on_done:
            tasks = list(self._on_done)
            for task in tasks:
                if not task.cancelling():  # a second time would interrupt its clean-up
                    task.cancel()
            await ended(tasks)
            await asyncio.sleep(0)  # their callbacks come after them

    def _end(self, task: asyncio.Task[None]) -> None:
        on_done = self._on_done.pop(task)
        error = error_of(task)
        if on_done is not None:
            on_done(error)
        elif isinstance(error, Exception):  # a KeyboardInterrupt has gone through the loop already
            task.get_loop().call_exception_handler(
                {"message": "a task of a session raised", "exception": error, "task": task}
            )


def not_open(state: str) -> SessionError:
    """The error of who uses a session that is not open."""
    return SessionError(
        f"this belongs to a session that is not open (it is {state}): use it inside its "
        f"`async with` block, or between open() and close()"
    )
