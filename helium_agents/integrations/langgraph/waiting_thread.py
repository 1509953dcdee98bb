"""A thread of an event loop's executor that waits for that loop gives its place there to another.

LangGraph runs sync nodes in the loop's default executor, which has few threads (6 on two cores). If
all of them wait for answers, whatever else needs one (an engine's start, the rendering of a prompt,
a name's address, a cached node's body) would wait for them, and they for it.
"""

from __future__ import annotations

import gc
import threading
from asyncio import AbstractEventLoop
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def place_given(loop: AbstractEventLoop) -> Iterator[None]:
    """Within this, the loop's executor may have one thread more, if the caller is one of its.

    The standard library has no public way to say so.
    """
    executor = _executor_of(loop)
    if executor is None or not _change(executor, 1):
        yield
        return
    try:
        yield
    finally:
        _change(executor, -1)


def _executor_of(loop: AbstractEventLoop) -> ThreadPoolExecutor | None:
    """The loop's default executor, once it has one."""
    found = getattr(loop, "_default_executor", None)
    # uvloop shows it to nobody, but refers to it, as any object does to what it has
    known = gc.get_referents(loop) if found is None else [found]
    return next((each for each in known if isinstance(each, ThreadPoolExecutor)), None)


def _change(executor: ThreadPoolExecutor, number: int) -> bool:
    """Change how many threads it may have, if the caller is one of them."""
    with executor._shutdown_lock:  # under which it enlists a thread that has already begun
        if threading.current_thread() not in executor._threads:
            return False
        executor._max_workers += number
        if number > 0 and not executor._shutdown:
            while executor._idle_semaphore.acquire(timeout=0):
                pass  # before Python 3.12 it takes threads for idle that are not
            executor._adjust_thread_count()  # one for what is in line already
    return True
