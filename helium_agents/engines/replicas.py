"""Several engines of one model: more room, more speed, and one may die alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from helium_agents.engines.engine import Capacity, Choice, Engine, PartedIdentity
from helium_agents.errors import EngineStartError


class Replicas:
    """Engines that compute the same model, given to a session in place of one.

    A request goes where the longest prefix of its prompt is in the KV cache, unless that engine has
    more to do than the prefix saves. A session keeps each of them alive for itself: while one that
    died is being restarted, the others go on, and take over what was open on it.

    Args:
        engines: Engines with the same `identity()`: same weights, settings and version.

    Raises:
        ValueError: There is none, or one is given twice.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        if not engines:
            raise ValueError("Replicas([]) needs at least one engine")
        if len({id(engine) for engine in engines}) < len(engines):
            raise ValueError("Replicas(...) was given the same engine twice: make one for each")
        self.engines = tuple(engines)

    def __repr__(self) -> str:
        return f"Replicas({list(self.engines)!r})"

    @property
    def name(self) -> str:
        """What a person calls the model."""
        return self.engines[0].name

    @property
    def capacity(self) -> Capacity | None:
        """What the started ones hold together; `None` if none is started, or one has no limit.

        Raises:
            EngineStartError: Their KV blocks differ in size, so that they cannot be added up.
        """
        found = [engine.capacity for engine in self.engines if engine.is_started]
        capacities = [capacity for capacity in found if capacity is not None]
        if not capacities or len(capacities) < len(found):
            return None
        block_sizes = {capacity.block_tokens for capacity in capacities}
        if len(block_sizes) > 1:
            raise EngineStartError(
                f"the replicas of {self.name!r} have KV blocks of {sorted(block_sizes)} tokens: "
                "give all of them the same block_size"
            )
        return Capacity(
            kv_tokens=sum(capacity.kv_tokens for capacity in capacities),
            block_tokens=block_sizes.pop(),
            max_model_tokens=min(capacity.max_model_tokens for capacity in capacities),
            max_requests=sum(capacity.max_requests for capacity in capacities),
        )

    @property
    def is_started(self) -> bool:
        """Whether any of them is started."""
        return any(engine.is_started for engine in self.engines)

    def identity(self) -> str:
        """The identity that all of them have.

        Raises:
            EngineStartError: They differ, so that an answer would depend on who gave it.
        """
        identities = {engine.identity() for engine in self.engines}
        if len(identities) > 1:
            raise EngineStartError(
                f"the replicas of {self.name!r} have {len(identities)} identities: give all of "
                "them the same model, dtype and arguments"
            )
        return identities.pop()

    def identity_parts(self) -> dict[str, str]:
        """What the identity is made of, where the engines say so."""
        engine = self.engines[0]
        return engine.identity_parts() if isinstance(engine, PartedIdentity) else {}

    async def start(self) -> None:
        """Start all that are not started, or died.

        Raises:
            EngineStartError: One does not start; none that was not started before is left.
        """
        idle = [engine for engine in self.engines if not engine.is_started]
        starts = (engine.start() for engine in self.engines)
        results = await asyncio.gather(*starts, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                await asyncio.gather(*(engine.close() for engine in idle))
                raise result

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The greedy answer cut to `max_tokens`, exactly as if it had been asked for so."""
        return self.engines[0].truncate(choice, max_tokens)

    async def __aenter__(self) -> Self:
        """Start it for a block, in which any number of sessions may use it."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop all of them. Idempotent."""
        await asyncio.gather(*(engine.close() for engine in self.engines))
