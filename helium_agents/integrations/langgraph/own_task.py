"""An async generator whose work has a task, and so a context, of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from helium_agents.graph.concurrently import ended, error_of
from helium_agents.graph.task_waits import AWAITED_BY, Task

_END = object()

HandOver = Callable[[Any], Awaitable[None]]
"""Gives a piece to the consumer; returns when he wants the next one."""


async def in_own_task(
    run: Callable[[HandOver], Awaitable[None]],
) -> AsyncGenerator[Any, None]:
    """The pieces that some work hands over; nothing is done before they are asked for.

    A generator's body runs in the context of whoever takes the next piece, so that a session which
    it opens would be his, too. Leaving the loop cancels the work and waits for its clean-up.

    Args:
        run: The work; what it raises is raised after its last piece.
    """
    wanted = asyncio.Semaphore(0)
    consumer: Task | None = None
    found: asyncio.Queue[Any] = asyncio.Queue()

    async def hand_over(piece: Any) -> None:
        found.put_nowait(piece)
        await wanted.acquire()

    async def work() -> None:
        await wanted.acquire()
        await run(hand_over)

    task = asyncio.create_task(work())
    task.add_done_callback(lambda _: found.put_nowait(_END))
    AWAITED_BY[task] = lambda _: consumer
    try:
        while True:
            wanted.release()
            consumer = asyncio.current_task()
            if (piece := await found.get()) is _END:
                break
            consumer = None
            yield piece
    finally:
        task.cancel()
        await ended([task])
        if error := error_of(task):
            raise error
