"""A session's engines by name: kept alive by fleets, stopped at its end if it started them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pydantic_core import from_json

from helium_agents.engines.engine import Model
from helium_agents.errors import SessionError
from helium_agents.runtime.facts import model_facts
from helium_agents.runtime.fleet import Fleet
from helium_agents.runtime.lifeline import Spawn
from helium_agents.telemetry.events import Observer


class EnginePool:
    """Named engines; the first is the default.

    Args:
        engines: The engines by the names that `llm(model=...)` uses; all below is also known by
            `None`, which is the first.
        spawn: Starts a task that the session owns.
        emit: Takes events.
    """

    def __init__(
        self,
        engines: Mapping[str, Model],
        spawn: Spawn,
        emit: Observer,
    ) -> None:
        default = next(iter(engines.values()))
        self._engines: dict[str | None, Model] = {None: default}
        self._engines.update(engines)
        self._identities: dict[str | None, bytes] = {}
        self._facts: dict[str | None, bytes] = {}
        fleets = {  # one for each engine, which may have two names
            id(engine): Fleet(engine, spawn=spawn, emit=emit) for engine in engines.values()
        }
        self._fleets = {name: fleets[id(engine)] for name, engine in self._engines.items()}

    @property
    def default(self) -> Model:
        """The engine of calls that name none."""
        return self._engines[None]

    def engine(self, model: str | None) -> Model:
        """The engine called `model`.

        Raises:
            SessionError: There is none of that name.
        """
        try:
            return self._engines[model]
        except KeyError:
            raise self._unknown(model) from None

    def open(self) -> None:
        """The session begins to use the engines."""
        for fleet in self._each_fleet():
            fleet.open()

    @property
    def states(self) -> list[str]:
        """What each engine is doing, in words."""
        return [state for fleet in self._each_fleet() for state in fleet.states]

    def _each_fleet(self) -> list[Fleet]:
        return list(dict.fromkeys(self._fleets.values()))

    async def identify(self) -> None:
        """Compute the identity of every engine, off the event loop: large weights take a while."""
        known: dict[int, bytes] = {}
        for name, engine in self._engines.items():
            if id(engine) not in known:
                known[id(engine)] = await asyncio.to_thread(model_facts, engine)
            self._facts[name] = known[id(engine)]
            self._identities[name] = from_json(known[id(engine)])["identity"].encode()

    def identity(self, model: str | None) -> bytes:
        """The identity of an engine's model, as part of keys.

        Raises:
            SessionError: There is none of that name.
        """
        try:
            return self._identities[model]
        except KeyError:
            raise self._unknown(model) from None

    def facts(self, model: str | None) -> bytes:
        """What facts of a call say of its model; see `model_facts`."""
        return self._facts[model]

    def fleet(self, model: str | None) -> Fleet:
        """What keeps the engine alive and takes its requests."""
        return self._fleets[model]

    async def close(self) -> None:
        """The session ends: stop the engines that none uses any more."""
        for fleet in self._each_fleet():
            await fleet.close()

    def _unknown(self, model: str | None) -> SessionError:
        names = ", ".join(repr(name) for name in self._engines if name is not None)
        return SessionError(f"llm(model={model!r}): this session's engines are {names}")
