"""What another thread's event loop does for a caller, who notices if that loop is blocked.

Sync code on a session's event loop that starts threads and waits for them (`graph.invoke` with two
parallel nodes) blocks the loop that the threads' calls need. A loop that only computes for long is
waited for; one that does not run, or whose thread waits for a lock each time one looks, is not.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from helium_agents.errors import SessionError
from helium_agents.integrations.langgraph.waiting_thread import place_given

T = TypeVar("T")

LOOKS_EVERY_S = 3.0
"""Of two looks at a loop the second may find it blocked."""

WAITS_FOR_ITSELF = (
    "ChatHelium, a cached node or a planned graph was called without await in the event loop of "
    "its session, which would wait for itself: use ainvoke, astream or abatch there, or call it in "
    "a thread (asyncio.to_thread)"
)

_END = object()

Put = Callable[[Any], None]
"""Takes a piece; `Work.pieces` hands it over."""


class Work(Generic[T]):
    """Something that is under way on an event loop.

    Args:
        future: Its end; cancelling it cancels the work.
        watch: Sees whether the loop is blocked.
    """

    def __init__(self, future: Future[T], watch: LoopWatch) -> None:
        self._future = future
        self._watch = watch
        self._patience_s = LOOKS_EVERY_S

    @staticmethod
    def on(loop: AbstractEventLoop, thread_id: int, work: Coroutine[Any, Any, T]) -> Work[T]:
        """Begin some work on a loop on which other code may run, too."""
        future = asyncio.run_coroutine_threadsafe(work, loop)
        return Work(future, LoopWatch(loop, thread_id))

    def result(self) -> T:
        """Wait for the end; an interruption (Ctrl-C) cancels the work.

        Raises:
            SessionError: The loop is blocked, or is the caller's own.
        """
        try:
            self._watch.check_is_elsewhere()
            with self._watch.place_given():
                while not wait([self._future], self._patience_s).done:
                    self._watch.look()
            return self._future.result()
        finally:
            self._future.cancel()

    async def result_async(self) -> T:
        """The same, for a caller on another event loop."""
        future = asyncio.wrap_future(self._future)
        try:
            while not (await asyncio.wait([future], timeout=self._patience_s))[0]:
                self._watch.look()
            return future.result()
        finally:
            future.cancel()


def pieces(begin: Callable[[Put], Work[None]]) -> Iterator[Any]:
    """What some work puts, as it comes; then the work's error, if it has one.

    Args:
        begin: Begins the work.
    """
    queue: SimpleQueue[Any] = SimpleQueue()
    work = begin(queue.put)
    work._future.add_done_callback(lambda _: queue.put(_END))
    try:
        work._watch.check_is_elsewhere()
        while True:
            try:
                with work._watch.place_given():
                    piece = queue.get(timeout=work._patience_s)
            except Empty:
                work._watch.look()
                continue
            if piece is _END:
                break
            yield piece
        work.result()
    finally:
        work._future.cancel()


async def pieces_async(begin: Callable[[Put], Work[None]]) -> AsyncGenerator[Any, None]:
    """The same, for a caller on another event loop."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    put_soon = asyncio.get_running_loop().call_soon_threadsafe

    def put(piece: Any) -> None:
        put_soon(queue.put_nowait, piece)

    work = begin(put)
    work._future.add_done_callback(lambda _: put(_END))
    try:
        while True:
            try:
                async with asyncio.timeout(work._patience_s):
                    piece = await queue.get()
            except TimeoutError:
                work._watch.look()
                continue
            if piece is _END:
                break
            yield piece
        await work.result_async()
    finally:
        work._future.cancel()


class LoopWatch:
    """Whether an event loop serves what it is given.

    Args:
        loop: The loop.
        thread_id: The thread that it runs in.
    """

    def __init__(self, loop: AbstractEventLoop, thread_id: int) -> None:
        self._loop = loop
        self._thread_id = thread_id
        self._is_asked = False

    def check_is_elsewhere(self) -> None:
        """Raise if the caller is on the loop, for which he would wait without await."""
        if asyncio._get_running_loop() is self._loop:
            raise SessionError(WAITS_FOR_ITSELF)

    def place_given(self) -> AbstractContextManager[None]:
        """Within this, the caller's thread waits for the loop."""
        return place_given(self._loop)

    def look(self) -> None:
        """Ask the loop, unless it has still to answer.

        Raises:
            SessionError: It has not answered, and its thread waits for a lock, or does not run it.
        """
        if not self._is_asked and not self._loop.is_closed():
            self._is_asked = True
            self._loop.call_soon_threadsafe(self._answered)
            return
        if not self._loop.is_running():
            raise SessionError("the event loop of ChatHelium's session does not run any more")
        frame = sys._current_frames().get(self._thread_id)
        if frame is None or frame.f_code.co_filename == threading.__file__:
            raise SessionError(
                "the event loop of ChatHelium's session is blocked: something on it waits for "
                "threads without await, and those wait for the session. Use ainvoke, abatch or "
                "astream of the graph or the model there, or call it in a thread "
                "(asyncio.to_thread)"
            )

    def _answered(self) -> None:
        self._is_asked = False
