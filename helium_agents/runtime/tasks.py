"""The tasks of a session: one supervisor owns them all, and none outlives it.

What `asyncio.TaskGroup` does, for children whose errors never reach the group: they belong to the
Refs that asked. One callback a task in place of three, since a session starts two tasks a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from contextvars import Context, copy_context
from typing import Any

from helium_agents.graph.concurrently import ended, error_of

OnDone = Callable[[BaseException | None], None]
"""Called when a task has ended, with what it raised; `None` if it returned, or was cancelled."""


class Tasks:
    """Tasks that are cancelled, and waited for, together; made on their event loop.

    Attributes:
        context: Where they run, each in a copy.
        resources: What is closed after the last of them.
        supervisor: Ends when all is closed.
    """

    def __init__(self) -> None:
        self.context = copy_context()
        self.resources = AsyncExitStack()
        self._on_done: dict[asyncio.Task[None], OnDone | None] = {}
        self._callback = self._end
        self._closing = asyncio.Event()
        self.supervisor = asyncio.get_running_loop().create_task(self._supervise())

    def __contains__(self, task: object) -> bool:
        return task in self._on_done

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
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._on_done[task] = on_done
        task.add_done_callback(self._callback)
        return task

    def begin_to_close(self) -> None:
        """Let the supervisor cancel all, wait for their clean-up, and close the resources."""
        self._closing.set()

    async def close(self) -> None:
        """The same, and wait until it is done, even if cancelled meanwhile.

        Raises:
            BaseException: What a resource raised when it was closed.
        """
        self._closing.set()
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
