"""Several engines of one model as one: more room, more speed, and one may die alone.

A request goes where the longest prefix of its prompt went last, since the KV cache there may still
have it, unless that engine has more to do than the prefix saves.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from xxhash import xxh3_64

from helium_agents.engines.engine import (
    Capacity,
    ChatMessage,
    Choice,
    Completion,
    Delta,
    Engine,
    PartedIdentity,
    Request,
)
from helium_agents.errors import EngineError, EngineStartError

_FIRST_PREFIX_TOKENS = 32
_MOST_PREFIXES = 1 << 16


class Router:
    """Decides which replica a request goes to.

    Of every prompt the prefixes of 32, 64, 128, ... tokens are remembered by their digests, so a
    prompt costs a few look-ups however long it is.

    Args:
        num_replicas: How many there are; they are known by their index.
    """

    def __init__(self, num_replicas: int) -> None:
        self._open_tokens = [0] * num_replicas
        self._sent_tokens = [0] * num_replicas  # in all; decides where the load is equal
        self._last: OrderedDict[int, int] = OrderedDict()

    @contextmanager
    def routed(self, request: Request, live: Collection[int]) -> Iterator[int]:
        """The replica for a request, which counts as its load for the length of the block.

        Args:
            request: What is to be computed.
            live: The replicas to choose from; not empty.
        """
        prompt = request.prompt_token_ids
        prefixes = list(_prefixes(prompt))
        index = self._choose(prefixes, live)
        for _, digest in prefixes:
            self._last[digest] = index
            self._last.move_to_end(digest)
        while len(self._last) > _MOST_PREFIXES:
            self._last.popitem(last=False)
        num_tokens = len(prompt) + request.sampling.n * request.sampling.max_tokens
        self._open_tokens[index] += num_tokens
        self._sent_tokens[index] += num_tokens
        try:
            yield index
        finally:
            self._open_tokens[index] -= num_tokens

    def forget(self, index: int) -> None:
        """The replica's cache is empty again."""
        self._last = OrderedDict((key, at) for key, at in self._last.items() if at != index)

    def _choose(self, prefixes: Sequence[tuple[int, int]], live: Collection[int]) -> int:
        """The replica with the least to do, counting as done what it need not prefill again."""
        saved_tokens: Counter[int] = Counter()
        for num_tokens, digest in prefixes:  # longer ones come later
            if digest in self._last:
                saved_tokens[self._last[digest]] = num_tokens

        def cost(index: int) -> tuple[int, int, int]:
            to_do = self._open_tokens[index] - saved_tokens[index]
            return to_do, self._sent_tokens[index], index

        return min(live, key=cost)


class Replicas:
    """Engines that compute the same model, as one engine.

    A session keeps each of them alive for itself: while one that died is being restarted, the
    others go on, and take over what was open on it.

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
        self.router = Router(len(engines))

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

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        """Token ids of the conversation in the model's own template, ready for the answer."""
        return await self.engines[self._started()[0]].render(messages)

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        """Compute the request on one of them; cancelling this aborts it.

        Raises:
            EngineDied: The one that it went to died; `start` revives it.
        """
        with self.router.routed(request, self._started()) as index:
            return await self.engines[index].complete(request, on_delta)

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

    def _started(self) -> list[int]:
        started = [index for index, engine in enumerate(self.engines) if engine.is_started]
        if not started:
            raise EngineError(f"no replica of {self.name!r} is started")
        return started


def _prefixes(prompt: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Lengths and digests of the prompt's prefixes of 32, 64, 128, ... tokens."""
    tokens, hasher = array("I", prompt), xxh3_64()
    start, end = 0, _FIRST_PREFIX_TOKENS
    while end <= len(tokens):
        hasher.update(tokens[start:end])
        yield end, hasher.intdigest()
        start, end = end, 2 * end
