"""The router: which of a model's replicas a request goes to.

To the one with the least to do, where what it has in its KV cache already counts as done.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from helium_agents.engines.engine import Request
from helium_agents.optimizer.prefix_tree import PrefixTree

_LEAST_SHARED_TOKENS = 32
"""What is shorter saves nothing: engines keep blocks of tokens, and every template begins alike."""

_MOST_TOKENS = 1 << 20
"""So many tokens of prompts are remembered; no KV cache of today holds more of one model."""


class Router:
    """Decides which replica a request goes to.

    Args:
        num_replicas: How many there are; they are known by their index.
        most_tokens: How many tokens of earlier prompts are remembered, shared ones counted once.
    """

    def __init__(self, num_replicas: int, most_tokens: int = _MOST_TOKENS) -> None:
        self._open_tokens = [0] * num_replicas
        self._sent_tokens = [0] * num_replicas  # in all; decides where the load is equal
        self._sent = PrefixTree()
        self._oldest: deque[tuple[array[int], int]] = deque()
        self._most_tokens = most_tokens

    @contextmanager
    def routed(self, request: Request, live: Collection[int]) -> Iterator[int]:
        """The replica for a request, which counts as its load for the length of the block.

        Args:
            request: What is to be computed.
            live: The replicas to choose from; not empty.
        """
        prompt = array("I", request.prompt_token_ids)
        shared = self._sent.num_shared_by(prompt)

        def saved(index: int) -> int:
            num_shared = shared.get(index, 0)
            return num_shared if num_shared >= _LEAST_SHARED_TOKENS else 0

        def cost(index: int) -> tuple[int, int, int]:
            return self._open_tokens[index] - saved(index), self._sent_tokens[index], index

        index = min(live, key=cost)
        num_saved = saved(index)
        if prompt:  # else the engine tells no token ids
            self._remember(prompt, index)
        num_tokens = len(prompt) - num_saved + request.sampling.n * request.sampling.max_tokens
        self._open_tokens[index] += num_tokens
        self._sent_tokens[index] += num_tokens
        try:
            yield index
        finally:
            self._open_tokens[index] -= num_tokens

    def forget(self, index: int) -> None:
        """The replica's cache is empty again."""
        self._sent.forget(index)
        self._oldest = deque(each for each in self._oldest if each[1] != index)

    def _remember(self, prompt: array[int], index: int) -> None:
        self._sent.insert(prompt, index)
        self._oldest.append((prompt, index))
        while self._sent.num_tokens > self._most_tokens:
            self._sent.remove(*self._oldest.popleft())
