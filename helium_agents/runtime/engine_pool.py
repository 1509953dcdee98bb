"""A session's engines by name: kept alive by fleets, stopped at its end if it started them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from helium_agents.engines.engine import Model, PartedIdentity
from helium_agents.errors import SessionError
from helium_agents.runtime.fleet import Fleet
from helium_agents.runtime.supervised_engine import Spawn
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
        self._made_of: dict[str | None, dict[str, str]] = {}
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
        known: dict[int, tuple[bytes, dict[str, str]]] = {}
        for name, engine in self._engines.items():
            if id(engine) not in known:
                known[id(engine)] = await asyncio.to_thread(_identified, engine)
            self._identities[name], self._made_of[name] = known[id(engine)]

    def identity(self, model: str | None) -> bytes:
        """The identity of an engine's model, as part of keys.

        Raises:
            SessionError: There is none of that name.
        """
        try:
            return self._identities[model]
        except KeyError:
            raise self._unknown(model) from None

    def about(self, model: str | None) -> tuple[str, dict[str, str]]:
        """What a person calls a model, and what its identity is made of, if the engine says so."""
        return self._engines[model].name, self._made_of[model]

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


def _identified(engine: Model) -> tuple[bytes, dict[str, str]]:
    """A model's identity, and what it is made of."""
    made_of = engine.identity_parts() if isinstance(engine, PartedIdentity) else {}
    return engine.identity().encode(), made_of
