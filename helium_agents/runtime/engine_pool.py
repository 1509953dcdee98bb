"""A session's engines: found by name, started when first needed, stopped if it started them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from helium_agents.engines.engine import Engine
from helium_agents.errors import SessionError
from helium_agents.telemetry.events import EngineStarted, EngineStarting, Observer


class EnginePool:
    """Named engines; the first is the default.

    Args:
        engines: The engines by the names that `llm(model=...)` uses.
        spawn: Starts a task that the session owns.
        on_started: Called when an engine has been started.
        emit: Takes events.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        on_started: Callable[[], None],
        emit: Observer,
    ) -> None:
        self._engines = dict(engines)
        self._spawn = spawn
        self._on_started = on_started
        self._emit = emit
        self._identities: dict[str, bytes] = {}
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._errors: dict[str, Exception] = {}
        self._ours: list[Engine] = []
        self._default = next(iter(self._engines))

    @property
    def default(self) -> Engine:
        """The engine of calls that name none."""
        return self._engines[self._default]

    def engine(self, model: str | None) -> Engine:
        """The engine called `model`.

        Raises:
            SessionError: There is none of that name.
        """
        try:
            return self._engines[self._default if model is None else model]
        except KeyError:
            raise SessionError(
                f"llm(model={model!r}): this session's engines are "
                f"{', '.join(map(repr, self._engines))}"
            ) from None

    async def identify(self) -> None:
        """Compute the identity of every engine, off the event loop: large weights take a while."""
        for name, engine in self._engines.items():
            self._identities[name] = (await asyncio.to_thread(engine.identity)).encode()

    def identity(self, model: str | None) -> bytes:
        """The identity of an engine's model, as part of keys."""
        self.engine(model)
        return self._identities[self._default if model is None else model]

    async def started(self, model: str | None) -> Engine:
        """The engine, started. Cancelling a caller does not cancel the start.

        Raises:
            EngineStartError: It does not start.
        """
        name = self._default if model is None else model
        engine = self.engine(model)
        if engine.is_started:
            return engine
        if name not in self._starts:
            self._starts[name] = self._spawn(self._start(name, engine))
        await asyncio.wait([self._starts[name]])
        if name in self._errors:
            raise self._errors[name]
        if not engine.is_started:  # the session closed meanwhile
            raise SessionError("the session was closed while its engine was starting")
        return engine

    async def close(self) -> None:
        """Stop the engines that this session started."""
        for engine in self._ours:
            await engine.close()

    async def _start(self, name: str, engine: Engine) -> None:
        self._emit(EngineStarting(engine.name))
        self._ours.append(engine)
        start_s = time.perf_counter()
        try:
            await engine.start()
        except Exception as error:
            self._errors[name] = error
        else:
            self._on_started()
            self._emit(EngineStarted(engine.name, time.perf_counter() - start_s))
