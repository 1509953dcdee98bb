"""Requests that nobody has asked for yet: they go where their engine is idle, and are first to go.

Such a request is sent when no demanded one waits, a slot is free, and its prompt and answer fit
into the KV cache beside all that is open. It is taken back, to wait again, as soon as demanded ones
need the slot or the room. Engines that heed priorities preempt it first meanwhile.
"""

from __future__ import annotations

import asyncio

from helium_agents.engines.engine import Completion, Request
from helium_agents.runtime.dispatch.request_queue import RequestQueue

PRIORITY = 1 << 20
"""Lower runs first: no schedule gives a demanded request so much."""


class IdleRequests:
    """Those of one model.

    Attributes:
        waiting: Those that are not sent, as they came.
        running: Those that the engine has, the newest last.
    """

    def __init__(self, queue: RequestQueue) -> None:
        self.waiting: dict[Request, asyncio.Future[None]] = {}
        self.running: dict[Request, asyncio.Timeout] = {}
        self._queue = queue

    async def complete(self, request: Request) -> Completion:
        """Compute a request, from the start again whenever it is taken back.

        Raises:
            Exception: What its engine raises; see `Fleet.complete`.
        """
        request.is_guess, request.priority = True, PRIORITY
        while True:
            await self._turn(request)
            scope = asyncio.timeout(None)
            try:
                async with scope:
                    self.running[request] = scope
                    return await self._queue.fleet.complete(request)
            except TimeoutError:
                if not scope.expired():
                    raise
            finally:
                self.running.pop(request, None)
                self._queue.end(request)
                self.send()

    async def _turn(self, request: Request) -> None:
        """Wait until the engine is idle enough."""
        turn = self.waiting[request] = asyncio.get_running_loop().create_future()
        try:
            self.send()
            await turn
        finally:
            self.waiting.pop(request, None)

    def send(self) -> None:
        """Let go those that there is room for."""
        queue = self._queue
        queue.room = queue.fleet.capacity
        for request, turn in self.waiting.items():
            if turn.done():
                continue
            if queue.ready or not self._fits(request):
                return
            turn.set_result(None)

    def make_room(self) -> None:
        """Take back the newest while demanded requests need what they have."""
        while self.running and not self._fits():
            _, scope = self.running.popitem()
            scope.reschedule(asyncio.get_running_loop().time())

    def promote(self, request: Request) -> bool:
        """Somebody has asked for a request that runs: from now on it is as any other.

        Returns:
            Whether it runs; otherwise it is still waiting, or was taken back.
        """
        if self.running.pop(request, None) is None:
            return False
        request.is_guess, request.priority = False, 0
        self._queue.running[request] = 0
        return True

    def _fits(self, *more: Request) -> bool:
        """Whether the engine has a slot and KV cache for all that it has, and for more."""
        queue = self._queue
        room = queue.room
        if room is None:
            return True
        leaving = [each for each, turn in self.waiting.items() if turn.done()]  # about to run
        guesses = [*self.running, *leaving, *more]
        if len(queue.running) + len(guesses) > room.max_requests:
            return False
        kept_tokens = queue.shared_tokens + sum(use.tokens for use in queue.items.values())
        others = [each for each in queue.running if each.item not in queue.items]
        most_tokens = kept_tokens + sum(map(_most_tokens, (*others, *guesses)))
        return most_tokens <= room.kv_tokens


def _most_tokens(request: Request) -> int:
    sampling = request.sampling
    return len(request.prompt_token_ids) + sampling.n * sampling.max_tokens
