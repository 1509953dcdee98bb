"""A session's engines by name: kept alive by fleets, stopped at its end if it started them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from helium_agents.engines.engine import Engine
from helium_agents.errors import SessionError
from helium_agents.runtime.fleet import Fleet
from helium_agents.runtime.supervised_engine import Spawn
from helium_agents.telemetry.events import Observer


class EnginePool(dict[str | None, Fleet]):
    """What keeps each model's engines alive and takes its requests, by the model's name.

    `None` stands for the first. Another name raises `SessionError`.

    Args:
        engines: The engines of each model by the name that `llm(model=...)` uses.
        spawn: Starts a task that the session owns.
        emit: Takes events.
    """

    def __init__(
        self, engines: Mapping[str, tuple[Engine, ...]], spawn: Spawn, emit: Observer
    ) -> None:
        super().__init__()
        fleets: dict[tuple[int, ...], Fleet] = {}  # one for each model, which may have two names
        for name, each in engines.items():
            ids = tuple(map(id, each))
            if ids not in fleets:
                fleets[ids] = Fleet(each, spawn=spawn, emit=emit)
            self.setdefault(None, fleets[ids])
            self[name] = fleets[ids]
        self._each = tuple(fleets.values())

    def __missing__(self, model: str | None) -> Fleet:
        names = ", ".join(repr(name) for name in self if name is not None)
        raise SessionError(f"llm(model={model!r}): this session's engines are {names}")

    def about(self, model: str | None) -> tuple[str, dict[str, str]]:
        """What a person calls a model, and what its identity is made of, if the engine says so."""
        fleet = self[model]
        return fleet.name, fleet.made_of

    @property
    def states(self) -> list[str]:
        """What each engine is doing, in words."""
        return [state for fleet in self._each for state in fleet.states]

    async def open(self) -> None:
        """The session begins to use the engines.

        Raises:
            EngineStartError: A model cannot be found.
        """
        for fleet in self._each:  # off the event loop: large weights take a while
            await asyncio.to_thread(fleet.identify)
        for fleet in self._each:
            fleet.open()

    async def close(self) -> None:
        """The session ends: stop the engines that none uses any more."""
        for fleet in self._each:
            await fleet.close()
