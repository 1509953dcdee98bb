"""A session's engines by name: kept alive by fleets, stopped at its end if it started them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from helium_agents.engines.engine import Engine
from helium_agents.errors import SessionError
from helium_agents.runtime.facts import model_facts
from helium_agents.runtime.fleet import Fleet
from helium_agents.runtime.lifeline import Spawn
from helium_agents.telemetry.events import Observer


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
        spawn: Spawn,
        on_started: Callable[[], None],
        emit: Observer,
    ) -> None:
        self._engines = dict(engines)
        self._identities: dict[str, bytes] = {}
        self._facts: dict[str, Mapping[str, Any]] = {}
        self._default = next(iter(self._engines))
        self._fleets = {  # one for each engine, which may have two names
            id(engine): Fleet(engine, spawn=spawn, on_started=on_started, emit=emit)
            for engine in self._engines.values()
        }

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
            facts = self._facts[name] = await asyncio.to_thread(model_facts, engine)
            self._identities[name] = facts["identity"].encode()

    def identity(self, model: str | None) -> bytes:
        """The identity of an engine's model, as part of keys."""
        self.engine(model)
        return self._identities[self._default if model is None else model]

    def facts(self, model: str | None) -> Mapping[str, Any]:
        """What facts of a call say of its model."""
        return self._facts[self._default if model is None else model]

    def fleet(self, model: str | None) -> Fleet:
        """What keeps the engine alive and takes its requests."""
        return self._fleets[id(self.engine(model))]

    async def close(self) -> None:
        """Stop the engines that this session started."""
        for fleet in self._fleets.values():
            await fleet.close()
