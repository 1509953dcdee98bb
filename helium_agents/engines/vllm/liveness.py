"""An engine that runs: it knows when it has died, tells every open request so, and shuts down.

vLLM tells the requests that it knows of. One that comes while the engine dies it may not know yet:
the first request of an engine, for instance, waits for an answer about what tasks there are, which
nobody gives any more, nor says so. So we listen for the end of the engine's processes ourselves.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from helium_agents.engines.engine_log import EngineLog
from helium_agents.engines.engine_processes import EngineProcesses
from helium_agents.engines.step_report import StepReport
from helium_agents.errors import EngineDied

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_SOCKETS = (
    "output_socket",
    "input_socket",
    "first_req_send_socket",
    "first_req_rcv_socket",
    "stats_update_socket",
)


class Launched:
    """An engine that runs."""

    def __init__(
        self, llm: AsyncLLM, processes: EngineProcesses, log: EngineLog, steps: StepReport
    ) -> None:
        self.llm = llm
        self.steps = steps
        self._processes = processes
        self._log = log
        self._is_lost = False
        self._open: set[asyncio.Timeout] = set()
        self._sentinels: list[int] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- its death -----------------------------------------------------------------------------

    def listen(self) -> None:
        """Hear of its death in this event loop, which its requests are to come from."""
        self._loop = loop = asyncio.get_running_loop()
        manager = self.llm.engine_core.resources.engine_manager
        for core in getattr(manager, "processes", ()):  # Ray's actors have none here
            sentinel = os.dup(core.sentinel)  # vLLM closes its own when it likes
            self._sentinels.append(sentinel)
            loop.add_reader(sentinel, self.lose)

    @property
    def is_dead(self) -> bool:
        """Whether it takes no requests any more."""
        return self._is_lost or bool(self.llm.errored)

    def lose(self) -> None:
        """It is dead: end what is open. Whoever sees it first tells all others."""
        self._is_lost = True
        self._stop_listening()
        loop = asyncio.get_running_loop()
        limits, self._open = self._open, set()
        for limit in limits:
            limit.reschedule(loop.time())

    def died(self) -> EngineDied:
        """What to raise where a request finds it dead."""
        cause = self._log.cause()
        return EngineDied(
            f"vLLM's engine process is gone: {cause or 'it was killed or closed'}",
            was_killed=cause is None,
        )

    @asynccontextmanager
    async def while_alive(self) -> AsyncIterator[None]:
        """A block that waits for vLLM; it ends at the latest when the engine does.

        Raises:
            EngineDied: The engine ended.
        """
        if self.is_dead:
            self.lose()
            raise self.died()
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._open.add(limit)
                try:
                    yield
                finally:
                    self._open.discard(limit)
        except TimeoutError as error:
            if limit.expired():
                raise self.died() from error
            raise

    # --- its end -------------------------------------------------------------------------------

    async def shut_down(self) -> None:
        """End the engine and its processes; requests that are still open fail."""
        llm, resources = self.llm, self.llm.engine_core.resources
        self.lose()
        handler = llm.output_handler
        if handler is not None:
            # First of all, or it reports the end of its queue as an error with a stack trace.
            handler.cancel()
        # Shielded: a cancellation must not keep a thread from stopping it that has yet to begin.
        stopped = asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._stop))
        reader = resources.output_queue_task
        # vLLM closes its sockets by a callback in this loop, which must run before the loop ends.
        await asyncio.gather(*filter(None, (stopped, handler)), return_exceptions=True)
        if reader is not None:
            await asyncio.gather(reader, return_exceptions=True)
        # It does not always do so, and leaves their context to the garbage collector.
        for name in _SOCKETS:
            socket = getattr(resources, name, None)
            if socket is not None:
                socket.close(linger=0)
        resources.ctx.term()

    def _stop(self) -> None:
        self.llm.shutdown()
        # Its finalizer shuts down once more, and at the interpreter's end complains that it can't.
        self.llm.shutdown = lambda timeout=None: None
        self._processes.end()
        self._log.close()
        self.steps.close()

    def _stop_listening(self) -> None:
        sentinels, self._sentinels = self._sentinels, []
        for sentinel in sentinels:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(sentinel)
            os.close(sentinel)
