"""A model's engines as one that does not die: a request goes to one of them and outlives it.

When an engine dies, every request that was open on it is asked again, there or on a replica. Any of
them may be to blame, so one that was open at two deaths runs alone from then on. Should the engine
die of that too, the request is poison: it fails, and the others go on.

A death by a kill from outside is weaker evidence: such a one convicts nobody until a request has
seen `DEATHS_BY_KILL` of them, so that an operator's (or a test's) `kill -9` at an unlucky moment
costs no row, while one that makes the kernel kill the engine every time is found all the same.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from helium_agents.engines.engine import Capacity, ChatMessage, Completion, Engine, Model, Request
from helium_agents.engines.replicas import Replicas
from helium_agents.errors import EngineDied, PoisonRequest
from helium_agents.graph.outcome import copy_error
from helium_agents.runtime.router import Router
from helium_agents.runtime.supervised_engine import Spawn, SupervisedEngine
from helium_agents.telemetry.events import Observer

DEATHS_IN_COMPANY = 2
"""After so many deaths a request runs alone."""

DEATHS_BY_KILL = 6
"""After so many deaths a request that ran alone is poison even if all of them were kills."""


class Fleet:
    """The engines of one model.

    Args:
        model: The engine, or `Replicas` of it.
        spawn: Starts a task that the session owns.
        emit: Takes events.
    """

    def __init__(self, model: Model, *, spawn: Spawn, emit: Observer) -> None:
        self._model = model
        engines = model.engines if isinstance(model, Replicas) else (cast(Engine, model),)
        self._router = Router(len(engines))

        def supervised(index: int, engine: Engine) -> SupervisedEngine:
            label = engine.name
            if len(engines) > 1:
                label += f" (replica {index + 1} of {len(engines)})"
            forget = partial(self._router.forget, index)
            return SupervisedEngine(engine, label, spawn=spawn, on_started=forget, emit=emit)

        self._all = [supervised(index, engine) for index, engine in enumerate(engines)]
        self._lines = list(enumerate(self._all))

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        """Token ids of the conversation in the model's own template, ready for the answer.

        Raises:
            EngineStartError: No engine starts.
            EngineDied: The engine dies again and again.
        """
        line = self._only() or next(iter((await self._up()).values()))
        return await line.engine.render(messages)

    @property
    def capacity(self) -> Capacity | None:
        """What the engines that are started hold together; `None` where there is no limit."""
        return self._model.capacity if self._model.is_started else None

    async def complete(self, request: Request) -> Completion:
        """Compute a request, on another engine or again where one died of whatever.

        Raises:
            PoisonRequest: It killed its engine.
            EngineStartError: No engine starts.
            EngineDied: The engine dies again and again.
        """
        num_deaths = 0
        while True:
            line = self._only()
            lines = {} if line is not None else await self._up()
            is_alone = num_deaths >= DEATHS_IN_COMPANY
            try:
                if line is not None:
                    completion = await line.complete(request, is_alone=is_alone)
                else:
                    with self._router.routed(request, lines) as index:
                        line = lines[index]
                        completion = await line.complete(request, is_alone=is_alone)
            except EngineDied as error:
                num_deaths += 1
                is_proven = not error.was_killed or num_deaths >= DEATHS_BY_KILL
                assert line is not None
                if is_alone and is_proven and line.end is None:
                    raise _poison(request.describe(), num_deaths, error) from error
                request = replace(request, request_id=f"{request.request_id}-again")
            else:
                if completion is not None:
                    return completion

    def open(self) -> None:
        """The session begins to use the engines."""
        for line in self._all:
            line.lease.take()

    async def close(self) -> None:
        """The session ends: stop the engines that sessions have started and none uses any more."""
        await asyncio.gather(*(line.lease.give_back() for line in self._all))

    @property
    def states(self) -> list[str]:
        """What each engine is doing, in words."""
        return [line.state for line in self._all]

    def _only(self) -> SupervisedEngine | None:
        """The engine, where there is one only and it runs: then there is nothing to choose."""
        line = self._all[0]
        is_ready = len(self._all) == 1 and line.is_up and line.engine.is_started
        return line if is_ready else None

    async def _up(self) -> dict[int, SupervisedEngine]:
        """The engines that run; starts all of them and waits for the first."""
        while True:
            for _, line in self._lines:
                line.begin()
            up = {index: line for index, line in self._lines if line.is_up}
            if up:
                return up
            self._drop_ended()
            starts = [line.starting for _, line in self._lines if line.starting is not None]
            if starts:
                await asyncio.wait(starts, return_when=asyncio.FIRST_COMPLETED)

    def _drop_ended(self) -> None:
        """Go on without the replicas that will not be started again, if any is left."""
        ended = [(index, line) for index, line in self._lines if line.end is not None]
        if len(ended) == len(self._lines):
            assert ended[0][1].end is not None
            raise copy_error(ended[0][1].end)  # each call raises one of its own
        for index, line in ended:
            self._lines.remove((index, line))
            warnings.warn(
                f"engine {line.label!r} is given up, the others go on: {line.end}",
                RuntimeWarning,
                stacklevel=2,
            )


def _poison(name: str, num_deaths: int, error: EngineDied) -> PoisonRequest:
    return PoisonRequest(
        f"{name} kills its engine: it was open at {num_deaths} deaths, alone at the last. {error}"
    )
