"""A supervised engine: it is started when needed, again each time it dies, and stopped at the end.

Several sessions can use one at once, and its owner may outlive them all. A session that finds an
engine stopped starts it, and then the sessions own it: the last of them that uses it stops it. An
engine that was started before belongs to whoever did that.

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

from helium_agents.engines.engine import Completion, Request
from helium_agents.engines.whole_engine import WholeEngine
from helium_agents.errors import EngineDied, EngineError, EngineStartError, SessionError
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM
from helium_agents.runtime.fleet.step_teller import StepTeller
from helium_agents.telemetry.events import EngineLost, EngineStarted, EngineStarting, Observer

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Starts a task that the session owns."""

MOST_FRUITLESS_RESTARTS = 6
"""An engine that dies again this often without an answer in between is not started once more."""


class _Use:
    """The sessions that use an engine now."""

    def __init__(self) -> None:
        self.num_sessions = 0
        self.is_ours = False


_uses: dict[int, _Use] = {}  # by the id of an engine, which the sessions in it keep alive


class SupervisedEngine:
    """One engine of a session.

    Args:
        engine: The engine.
        model: What a person calls its model.
        label: What a person calls it.
        spawn: Starts a task that the session owns.
        on_up: Called whenever requests may be sent to it again, or for the first time.
        emit: Takes events.

    Attributes:
        is_up: Whether requests may be sent to it.
        end: Why it will not be started any more; `None` while it may.
        starting: The start that is under way.
        num_deaths: How often it has died in this session.
    """

    def __init__(
        self,
        engine: WholeEngine,
        model: str,
        label: str,
        *,
        spawn: Spawn,
        on_up: Callable[[], None],
        emit: Observer,
    ) -> None:
        self.engine = engine
        self.label = label
        self.is_up = False
        self.end: BaseException | None = None
        self.starting: asyncio.Task[None] | None = None
        self._spawn = spawn
        self._on_up = on_up
        self._emit = emit
        self._use: _Use | None = None
        self._alone = asyncio.Lock()
        self._num_open = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self.num_deaths = 0
        self._num_fruitless = 0
        self._steps = StepTeller(engine, model, label, emit) if engine.tells_steps else None

    @property
    def state(self) -> str:
        """What it is doing, in words."""
        if self.end is not None:
            return f"engine {self.label!r} has ended: {self.end}"
        more = f"; {self.engine.state}" if self.engine.state else ""
        if self.starting is not None:
            return f"engine {self.label!r} is being started{more}"
        if not self.is_up:
            return f"engine {self.label!r} is not started yet"
        return f"engine {self.label!r} is up, open requests: {self._num_open}{more}"

    def open(self) -> None:
        """The session begins to use the engine."""
        self._use = _uses.setdefault(id(self.engine.engine), _Use())
        self._use.num_sessions += 1
        if self._steps is not None:
            self._steps.begin()

    async def close(self) -> None:
        """The session ends: stop the engine if sessions own it and no other uses it. Idempotent."""
        use, self._use = self._use, None
        if use is None:
            return
        if self._steps is not None:
            self._steps.tell_all()
        use.num_sessions -= 1
        if not use.num_sessions:
            del _uses[id(self.engine.engine)]
            if use.is_ours:
                await self.engine.close()

    def begin(self) -> None:
        """See to it that the engine is up, or on its way."""
        is_started = self.engine.is_started
        if not (self.is_up and is_started) and self.starting is None and self.end is None:
            self.is_up = is_started
            if is_started:
                self._on_up()
            else:
                self.starting = self._spawn(self._start())

    def was_closed(self) -> bool:
        """Whether an error came of somebody having closed the engine; then it is started again."""
        if self.engine.is_started:
            return False
        self.begin()
        return True

    async def complete(self, request: Request, *, is_alone: bool) -> Completion | None:
        """Compute a request when its turn has come; `None` if the engine was gone by then.

        Args:
            request: What to compute.
            is_alone: Whether no other request may be open meanwhile, so that the next death tells
                whether it is to blame. Such a one goes first: on a busy engine its turn would
                never come otherwise.

        Raises:
            EngineDied: The engine died while the request was open. It is being restarted, unless
                `end` says that this was the last time.
            EngineError: The engine answered nothing, or not all that was asked.
        """
        if is_alone or self._alone.locked():
            await self._enter(is_alone=is_alone)
        self._num_open += 1
        self._is_idle.clear()
        try:
            if not self.is_up:
                return None
            on_delta, life = request.on_attempt(), self.num_deaths
            try:
                completion = await self.engine.complete(request, on_delta)
            except EngineDied as error:
                if life == self.num_deaths:  # nobody else has reported it
                    self._note_death(error)
                raise
            except Exception:
                if self.was_closed():
                    return None
                raise
            self._num_fruitless = 0
            if self._steps is not None:
                self._steps.tell()
            return self._checked(completion, request)
        finally:
            self._num_open -= 1
            if not self._num_open:
                self._is_idle.set()
            if is_alone:
                self._alone.release()

    async def _enter(self, *, is_alone: bool) -> None:
        """Wait until nobody is alone; who is to be alone keeps the lock until it ends."""
        await self._alone.acquire()
        try:
            if is_alone:
                await self._is_idle.wait()
        except BaseException:
            self._alone.release()
            raise
        if not is_alone:
            self._alone.release()

    def _checked(self, completion: Completion | None, request: Request) -> Completion:
        """What an engine gave, with its tokens counted; its types are not checked for sure."""
        if completion is None:
            raise EngineError(f"engine {self.label!r} gave None in place of a Completion")
        num_choices = len(completion.choices)
        if num_choices != request.sampling.n:
            raise EngineError(
                f"engine {self.label!r} gave {num_choices} answers in place of {request.sampling.n}"
            )
        output_tokens = completion.output_tokens
        if not output_tokens:
            for choice in completion.choices:
                output_tokens += len(choice.token_ids)
        prompt_tokens = completion.prompt_tokens or len(request.prompt_token_ids)
        return completion._replace(prompt_tokens=prompt_tokens, output_tokens=output_tokens)

    def _note_death(self, error: EngineDied) -> None:
        self.num_deaths += 1
        self._num_fruitless += 1
        self.is_up = False
        if self._steps is not None:
            self._steps.tell_all()
        self._emit(EngineLost(self.label, str(error), self._num_open, self.num_deaths))
        if self._num_fruitless > MOST_FRUITLESS_RESTARTS:
            self.end = EngineDied(
                f"engine {self.label!r} died {self._num_fruitless} times in a row without "
                f"answering a request, so it is not started again. The last time: {error}"
            )
            return
        self.starting = self._spawn(self._start())
        # Last of all: where warnings are errors this raises. The number tells Python's filter,
        # which shows equal warnings once, that this is another one.
        warnings.warn(
            f"engine {self.label!r} died (death {self.num_deaths} in this session, "
            f"open requests: {self._num_open}): {error}. It is being started again, and what was "
            "open is asked again",
            RuntimeWarning,
            stacklevel=2,
        )

    async def _start(self) -> None:
        self._emit(EngineStarting(self.label))
        start_s = time.perf_counter()
        try:
            if self._use is not None and not self.engine.is_started:
                self._use.is_ours = True
            await self.engine.start()
            self._on_up()
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
