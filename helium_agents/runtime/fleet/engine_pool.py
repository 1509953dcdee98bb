"""A session's engines by name: kept alive by fleets, stopped at its end if it started them."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Mapping

from helium_agents.engines.engine import AnswersLast, Engine, shortest
from helium_agents.errors import SessionError
from helium_agents.keys.encoding import fingerprint
from helium_agents.runtime.fleet.fleet import Fleet
from helium_agents.runtime.fleet.supervised_engine import Spawn
from helium_agents.telemetry.events import ModelOpened, Observer


class EnginePool(dict[str | None, Fleet]):
    """What keeps each model's engines alive and takes its requests, by the model's name.

    `None` stands for the first. Another name raises `SessionError`.

    Args:
        engines: The engines of each model by the name that `llm(model=...)` uses.
        spawn: Starts a task that the session owns.
        emit: Takes events.

    Attributes:
        fleets: One for each model.
        numbers: Which of them a model has, by its name.
        identity: Of all models together; empty until `open`.
        limits_memory: Whether there is a model whose answers may not be remembered for good.
    """

    def __init__(
        self, engines: Mapping[str, tuple[Engine, ...]], spawn: Spawn, emit: Observer
    ) -> None:
        super().__init__()
        fleets: dict[tuple[int, ...], Fleet] = {}  # one for each model, which may have two names
        self.numbers: dict[str | None, int] = {None: 0}
        for name, each in engines.items():
            ids = tuple(map(id, each))
            if ids not in fleets:
                fleets[ids] = Fleet(each, spawn=spawn, emit=emit)
            self.setdefault(None, fleets[ids])
            self[name] = fleets[ids]
            self.numbers[name] = list(fleets).index(ids)
        self.identity = b""
        self._emit = emit
        self.fleets = tuple(fleets.values())
        self.limits_memory = any(fleet.limits_memory for fleet in self.fleets)

    def __missing__(self, model: str | None) -> Fleet:
        names = ", ".join(repr(name) for name in self if name is not None)
        raise SessionError(f"llm(model={model!r}): this session's engines are {names}")

    def about(self, model: str | None) -> tuple[str, dict[str, str]]:
        """What a person calls a model, and what its identity is made of, if the engine says so."""
        fleet = self[model]
        return fleet.name, fleet.made_of

    @property
    def made_of(self) -> dict[str, str]:
        """What the identities of all models are made of, as far as the engines say so."""
        if len(self.fleets) == 1:
            return self.fleets[0].made_of
        return {
            f"{it.name}: {part}": text for it in self.fleets for part, text in it.made_of.items()
        }

    @property
    def answers_last(self) -> AnswersLast:
        """How long what any of the models has a share in may be remembered."""
        return shortest(fleet.answers_last for fleet in self.fleets)

    def warn_of_short_memory(self) -> None:
        """Say which models' answers are not written to the memo."""
        for fleet in self.fleets:
            if fleet.answers_last == "a session":
                warnings.warn(
                    f"the server of {fleet.name!r} does not tell which weights it has, so its "
                    "answers are shared in this session and not kept in the memo: vouch for them "
                    "by OpenAIServer(weights=...), on the command line --weights",
                    UserWarning,
                    stacklevel=2,
                )

    @property
    def names(self) -> str:
        """What a person calls the models."""
        return ", ".join(fleet.name for fleet in self.fleets)

    @property
    def states(self) -> list[str]:
        """What each engine is doing, in words."""
        return [state for fleet in self.fleets for state in fleet.states]

    async def open(self) -> None:
        """The session begins to use the engines.

        Raises:
            EngineStartError: A model cannot be found.
        """
        for fleet in self.fleets:  # off the event loop: large weights take a while
            await asyncio.to_thread(fleet.identify)
        self.identity = fingerprint(*(fleet.identity for fleet in self.fleets))
        for fleet in self.fleets:
            fleet.open()
            self._emit(ModelOpened(fleet.name, fleet.first.provider, fleet.first.server))

    async def close(self) -> None:
        """The session ends: stop the engines that none uses any more."""
        for fleet in self.fleets:
            await fleet.close()
