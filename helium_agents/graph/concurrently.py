"""Awaiting several things at once, with a failure that does not depend on timing.

Rule: the results come in the order of the arguments. If any fails, the error raised is that of
the first failing one *in that order*, whichever failed first on the clock; as soon as it is
certain, the rest is cancelled and its clean-up awaited, so nothing is left running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any

from helium_agents.graph.outcome import Failure, Outcome, Value

ENDS_THE_PROGRAM = (KeyboardInterrupt, SystemExit)
"""What asyncio raises out of the event loop when a task raises it; a task must not keep it back."""


async def values_of(awaitables: Iterable[Awaitable[Any]]) -> list[Any]:
    """The values of all awaitables, by the rule above."""
    return [outcome.get() for outcome in await outcomes_of(awaitables, stop_at_failure=True)]


async def outcomes_of(
    awaitables: Iterable[Awaitable[Any]], *, stop_at_failure: bool
) -> list[Outcome]:
    """The outcomes of all awaitables, or of those up to the first failure in their order.

    Not a `TaskGroup`: it would end at the first failure on the clock, and wrap what is no
    `Exception` into a group.
    """
    waited_for = list(awaitables)
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(_outcome(awaitable)) for awaitable in waited_for]
    outcomes: list[Outcome] = []
    try:
        for task in tasks:
            if not task.done():
                await asyncio.wait((task,))  # unlike `await task`, it leaves the task its own end
            outcomes.append(_result(task))
            if stop_at_failure and isinstance(outcomes[-1], Failure):
                break
    finally:
        left = tasks[len(outcomes) :]
        for task in left:
            task.cancel()
        try:
            await ended(left)
        finally:
            for task in left:
                if task.done() and not task.cancelled():
                    task.exception()  # seen: what a cancelled task raises concerns nobody
            for awaitable in waited_for[len(outcomes) :]:  # some may never have begun
                if isinstance(awaitable, Coroutine):
                    awaitable.close()
    return outcomes


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until the tasks have ended; a cancellation meanwhile is raised only then.

    As in `asyncio.TaskGroup`, nobody walks away from a clean-up that he asked for, however often
    he is cancelled: anyio cancels again at every await of a cancelled scope.
    """
    left = {task for task in tasks if task is not asyncio.current_task() and not task.done()}
    interruption: asyncio.CancelledError | None = None
    while left:
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError as error:
            interruption = error
        left = {task for task in left if not task.done()}
    if interruption is not None:
        raise interruption


def error_of(task: asyncio.Task[Any]) -> BaseException | None:
    """What a task that has ended raised; `None` if it returned, or was cancelled."""
    return None if task.cancelled() else task.exception()


async def _outcome(awaitable: Awaitable[Any]) -> Outcome:
    try:
        return Value(await awaitable)
    except ENDS_THE_PROGRAM:
        raise
    except BaseException as error:
        return Failure(error)


def _result(task: asyncio.Task[Outcome]) -> Outcome:
    try:
        return task.result()
    except BaseException as error:  # it was cancelled by somebody else, or ends the program
        return Failure(error)
