"""Sessions on an event loop in a thread, for code that waits for its calls in threads of its own.

Programs of LangChain call models from threads, from several event loops one after another, and
from none. A session lives on one loop, and so does an engine. Hence there is one loop for all who
need one in a process: sessions of several models and graphs may have one engine. It runs until the
process ends, in a daemon thread: an executor's (anyio's portal has one) is waited for before
anything could close a session, so that a program which never closes its model would not end.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from helium_agents.engines.default import EngineLike
from helium_agents.integrations.langgraph.work import Work
from helium_agents.runtime.session import Session

T = TypeVar("T")

_CLOSES_WITHIN_S = 60.0


class LoopThread:
    """A session there; it begins with the first call, in a forked process anew.

    Args:
        engine: The session's engine, or `None` for the embedded model.
        options: What else `Session` takes.
    """

    def __init__(self, engine: EngineLike | None, options: dict[str, Any]) -> None:
        self.engine = engine
        self.options = options
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._pid = os.getpid()
        self._using = threading.Lock()
        self._num_users = 0

    @contextmanager
    def used(self) -> Iterator[None]:
        """Use it for a block; it closes when the last of those who use it at once has left."""
        with self._using:
            self._num_users += 1
        try:
            yield
        finally:
            with self._using:
                self._num_users -= 1
                if self._num_users == 0:
                    self.close()

    def submit(self, work: Coroutine[Any, Any, T]) -> Work[T]:
        """Run something in the session."""
        if self._pid != os.getpid():  # the thread is the parent's, and may have held the lock
            self._lock, self._running, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._running is None:
                self._running = running = _Running(*_the_loop())
                self._finalizer = weakref.finalize(self, running.end)
            running = self._running
            return Work.on(running.loop, running.thread_id, self._in_session(running, work))

    async def _in_session(self, running: _Running, work: Coroutine[Any, Any, T]) -> T:
        try:
            if running.opening is None:
                session = Session(self.engine, **self.options)
                running.opening = running.loop.create_task(session.open())
            session = await asyncio.shield(running.opening)
        except BaseException:
            work.close()
            raise
        return await session.run(lambda: work)

    def close(self) -> None:
        """Close the session; a later call begins anew. Idempotent."""
        with self._lock:
            if self._running is not None:
                self._running = None
                self._finalizer()


class _Running:
    """The session while it lasts.

    Args:
        loop: Where.
        thread_id: The thread that it runs in.

    Attributes:
        opening: The task that opens the session, once there is one.
    """

    def __init__(self, loop: AbstractEventLoop, thread_id: int) -> None:
        self.loop = loop
        self.thread_id = thread_id
        self.opening: asyncio.Task[Session] | None = None
        self._pid = os.getpid()

    def end(self) -> None:
        """Close the session. The garbage collector may call it in any thread."""
        if self._pid != os.getpid():
            return  # it is the parent's
        closing = asyncio.run_coroutine_threadsafe(self._end(), self.loop)
        is_there = threading.get_ident() == self.thread_id
        if not is_there and wait([closing], _CLOSES_WITHIN_S).done:
            closing.result()

    async def _end(self) -> None:
        if self.opening is not None:
            await asyncio.wait([self.opening])
            if not self.opening.cancelled() and self.opening.exception() is None:
                await self.opening.result().close()  # else who asked was told


class _Executor(ThreadPoolExecutor):
    """The loop's threads; at the process's end, when none begins any more, the loop's own.

    What closes a session then asks for threads, and nothing else runs on the loop by then.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call it in a thread."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:  # said before it is in line
            done: Future[T] = Future()
            try:
                done.set_result(fn(*args, **kwargs))
            except BaseException as error:
                done.set_exception(error)
            return done


class _Loop:
    """The event loop of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: AbstractEventLoop | None = None
        self._thread_id = 0

    def started(self) -> tuple[AbstractEventLoop, int]:
        """It and its thread, while it runs."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                loop.set_default_executor(_Executor(thread_name_prefix="asyncio"))
                run = loop.run_forever
                thread = threading.Thread(target=run, name="helium-langchain", daemon=True)
                thread.start()
                self._loop, self._thread_id = loop, thread.ident or 0
            return self._loop, self._thread_id


_loops: dict[int, _Loop] = {}
"""By process: that of the parent does not run in a forked one."""


def _the_loop() -> tuple[AbstractEventLoop, int]:
    return _loops.setdefault(os.getpid(), _Loop()).started()
