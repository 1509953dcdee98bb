"""Ending work that is only a guess: it may catch its cancellation, and go on.

A body that does so once, as one with `except BaseException:` around a wait, is cancelled again when
it had the time to clean up. One that does so whenever it is cancelled, as a loop with a bare
`except:`, cannot be ended: Python has no means. It is left where it is, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import ctypes
import warnings
from typing import Any

_WAITS_S = (10.0, 1.0, 1.0)
"""So long what is cancelled may clean up, before it is cancelled again and when it was."""


async def ended_or_left(work: asyncio.Task[Any], left: asyncio.Future[None]) -> bool:
    """Wait for a task, which is cancelled when we are; whether it has ended, and is not left.

    Args:
        work: The task.
        left: Made done where it is known already that the task goes on whatever ends it.
    """
    for wait_s in (None, *_WAITS_S):
        if wait_s is not None:
            work.cancel()
        try:
            await asyncio.wait((work, left), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            continue  # it is handed on
        if work.done() or left.done():
            break
    if not work.done():
        leave_for_ever(work)
    return work.done()


def leave_for_ever(task: asyncio.Task[Any]) -> None:
    """See to it that nobody tries to end a task any more.

    Who closes the loop would wait for it, and Python, when it frees it, throws what it catches.
    """
    asyncio.tasks._unregister_task(task)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))


def warn_of_endless(what: str) -> None:
    """Tell the user of an operator that cannot be ended, once for each that is left."""
    warnings.warn(
        f"{what}, since it goes on when it is cancelled (a bare `except:` in a loop, perhaps): let "
        "asyncio.CancelledError through, with `except Exception:`",
        RuntimeWarning,
        stacklevel=2,
    )
