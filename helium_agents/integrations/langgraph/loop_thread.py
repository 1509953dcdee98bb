"""An event loop in a thread of its own, with a session that is open on it.

Programs of LangChain call models from threads, from several event loops one after another, and
from none. A session lives on one loop, so there is one for all of them. The thread is a daemon that
is ended when the interpreter exits: an executor's (anyio's portal has one) is waited for before
anything could close the session, so that a program which never closes its model would not end.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from helium_agents.engines.default import EngineLike
from helium_agents.integrations.langgraph.work import Work
from helium_agents.runtime.session import Session

T = TypeVar("T")

_CLOSES_WITHIN_S = 60.0


class LoopThread:
    """The loop; it and its session begin with the first call, in a forked process anew.

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
                self._running = running = _Running()
                self._finalizer = weakref.finalize(self, running.end)
            loop = self._running.loop
            return Work(
                asyncio.run_coroutine_threadsafe(self._in_session(self._running, work), loop)
            )

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
        """Close the session and end the thread; a later call begins anew. Idempotent."""
        with self._lock:
            if self._running is not None:
                self._running = None
                self._finalizer()


class _Running:
    """The thread, and what runs in it.

    Attributes:
        loop: Its event loop.
        opening: The task that opens the session, once there is one.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.opening: asyncio.Task[Session] | None = None
        self._pid = os.getpid()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="helium-langchain", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def end(self) -> None:
        """Close the session, then the loop. The garbage collector may call it in any thread."""
        if self._pid != os.getpid():
            return  # it is the parent's
        asyncio.run_coroutine_threadsafe(self._end(), self.loop)
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSES_WITHIN_S)
        if self._error is not None:
            raise self._error

    async def _end(self) -> None:
        try:
            if self.opening is not None:
                await asyncio.wait([self.opening])
                if not self.opening.cancelled() and self.opening.exception() is None:
                    await self.opening.result().close()  # else who asked was told
        except BaseException as error:  # told by whoever ends it
            self._error = error
        finally:
            self.loop.stop()
