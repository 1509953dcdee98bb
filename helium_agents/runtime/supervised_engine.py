"""A supervised engine: it is started when needed, and again each time it dies.

A death shows in the `EngineDied` of every request that was open. The first of them to arrive
reports the death: one event, one warning and one restart for all. What becomes of the requests is
not decided here but in `fleet`.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

from helium_agents.engines.engine import Completion, Engine, Request
from helium_agents.errors import EngineDied, EngineError, EngineStartError, SessionError
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM
from helium_agents.runtime.engine_lease import EngineLease
from helium_agents.telemetry.events import EngineLost, EngineStarted, EngineStarting, Observer

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Starts a task that the session owns."""

MOST_FRUITLESS_RESTARTS = 6
"""An engine that dies again this often without an answer in between is not started once more."""


class SupervisedEngine:
    """One engine of a session.

    Args:
        engine: The engine.
        label: What a person calls it.
        spawn: Starts a task that the session owns.
        on_started: Called whenever it has been started.
        emit: Takes events.

    Attributes:
        is_up: Whether requests may be sent to it.
        end: Why it will not be started any more; `None` while it may.
        starting: The start that is under way.
        lease: This session's use of the engine.
    """

    def __init__(
        self,
        engine: Engine,
        label: str,
        *,
        spawn: Spawn,
        on_started: Callable[[], None],
        emit: Observer,
    ) -> None:
        self.engine = engine
        self.label = label
        self.is_up = False
        self.end: BaseException | None = None
        self.starting: asyncio.Task[None] | None = None
        self.lease = EngineLease(engine)
        self._spawn = spawn
        self._on_started = on_started
        self._emit = emit
        self._occupancy = Occupancy()
        self._num_deaths = 0
        self._num_fruitless = 0

    @property
    def state(self) -> str:
        """What it is doing, in words."""
        if self.end is not None:
            return f"engine {self.label!r} has ended: {self.end}"
        if self.starting is not None:
            return f"engine {self.label!r} is being started"
        if not self.is_up:
            return f"engine {self.label!r} is not started yet"
        return f"engine {self.label!r} is up, open requests: {self._occupancy.num_inside}"

    def begin(self) -> None:
        """See to it that the engine is up, or on its way."""
        if self.is_up and self.engine.is_started:
            return
        if self.starting is None and self.end is None:
            self.is_up = self.engine.is_started
            if not self.is_up:
                self._launch()

    async def complete(self, request: Request, *, is_alone: bool) -> Completion | None:
        """Compute a request when its turn has come; `None` if the engine died before that.

        Args:
            request: What to compute.
            is_alone: Whether no other request may be open meanwhile.

        Raises:
            EngineDied: The engine died while the request was open. It is being restarted, unless
                `end` says that this was the last time.
            EngineError: The engine answered nothing.
        """
        if not self._occupancy.try_enter(alone=is_alone):
            await self._occupancy.enter(alone=is_alone)
        try:
            if not self.is_up:
                return None
            on_delta, life = request.on_attempt(), self._num_deaths
            try:
                completion = await self.engine.complete(request, on_delta)
            except EngineDied as error:
                if life == self._num_deaths:  # nobody else has reported it
                    self._mourn(error)
                raise
            self._num_fruitless = 0
            if completion is None:  # an engine is anybody's: its types are not checked for sure
                raise EngineError(f"engine {self.label!r} gave None in place of a Completion")
            return completion
        finally:
            self._occupancy.leave()

    def _mourn(self, error: EngineDied) -> None:
        self._num_deaths += 1
        self._num_fruitless += 1
        self.is_up = False
        num_open = self._occupancy.num_inside
        self._emit(EngineLost(self.label, str(error), num_open, self._num_deaths))
        if self._num_fruitless > MOST_FRUITLESS_RESTARTS:
            self.end = EngineDied(
                f"engine {self.label!r} died {self._num_fruitless} times in a row without "
                f"answering a request, so it is not started again. The last time: {error}"
            )
            return
        self._launch()
        # Last of all: where warnings are errors this raises. The number tells Python's filter,
        # which shows equal warnings once, that this is another one.
        warnings.warn(
            f"engine {self.label!r} died (death {self._num_deaths} in this session, open requests: "
            f"{num_open}): {error}. It is being started again, and what was open is asked again",
            RuntimeWarning,
            stacklevel=2,
        )

    def _launch(self) -> None:
        self.lease.will_start()
        self.starting = self._spawn(self._start())

    async def _start(self) -> None:
        self._emit(EngineStarting(self.label))
        start_s = time.perf_counter()
        try:
            await self.engine.start()
            self._on_started()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():  # nobody cancelled us: it was its own
                self.end = EngineStartError(
                    f"engine {self.label!r} was cancelled from inside while it was starting"
                )
                return
            self.end = SessionError("the session was closed while its engine was starting")
            raise
        except ENDS_THE_PROGRAM:
            self.end = SessionError("the program was ended while its engine was starting")
            raise
        except BaseException as error:
            self.end = error
        else:
            self.is_up = True
            self._emit(EngineStarted(self.label, time.perf_counter() - start_s))
        finally:
            self.starting = None


class Occupancy:
    """Many requests at once, or one alone, so that the next death tells whether it is to blame.

    Who wants to be alone goes first: on a busy engine its turn would never come otherwise.
    """

    def __init__(self) -> None:
        self.num_inside = 0
        self._is_alone = False
        self._num_wanting_alone = 0
        self._waiting: list[asyncio.Future[None]] = []

    def try_enter(self, *, alone: bool) -> bool:
        """Enter if there is room at once, as there nearly always is; see `enter`."""
        if not self._has_room(alone):
            return False
        self._is_alone = alone
        self.num_inside += 1
        return True

    async def enter(self, *, alone: bool) -> None:
        """Wait until there is room, and enter; who has entered calls `leave`."""
        self._num_wanting_alone += alone
        try:
            while not self.try_enter(alone=alone):
                wake = asyncio.get_running_loop().create_future()
                self._waiting.append(wake)
                await wake
        except asyncio.CancelledError:
            self._wake()  # others may have waited for us only
            raise
        finally:
            self._num_wanting_alone -= alone

    def leave(self) -> None:
        """Make room."""
        self.num_inside -= 1
        self._is_alone = False
        self._wake()

    def _has_room(self, alone: bool) -> bool:
        if alone:
            return not self.num_inside
        return not self._is_alone and not self._num_wanting_alone

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            if not wake.done():
                wake.set_result(None)
