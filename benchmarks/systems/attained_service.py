"""Least attained service of Autellix (Luo et al., 2025, arXiv 2502.13965), in our runtime.

Of the sessions that ask, the one goes first for which least has been computed so far; the engine
preempts by the same order. Levels double, as its queues' quanta do, or sessions of equal service
would take turns.
"""

from __future__ import annotations

from benchmarks.systems.ours import Ours
from helium_agents.optimizer.schedule import Asked, Queue, has_slot


class LeastAttainedService:
    """Sends requests by what their session has had, least first; it never holds one back."""

    def __init__(self) -> None:
        self._served: dict[int, int] = {}
        self._seen: dict[int, int] = {}

    def keeps_prefixes(self, queue: Queue) -> bool:
        """No."""
        return False

    def choose(self, queue: Queue) -> Asked | None:
        """The first of the lowest level."""
        if not has_slot(queue):
            return None
        asked = min(queue.ready, key=self._level)
        asked.priority = self._level(asked)
        if asked.item is not None:
            end = len(asked.prompt_token_ids) + asked.max_tokens
            grown = end - self._seen.get(asked.item, 0)
            self._served[asked.item] = self._served.get(asked.item, 0) + max(0, grown)
            self._seen[asked.item] = end
        return asked

    def look_again_s(self, queue: Queue) -> None:
        """Never."""

    def _level(self, asked: Asked) -> int:
        served = 0 if asked.item is None else self._served.get(asked.item, 0)
        return served.bit_length()


SYSTEMS = (Ours("attained-service", schedule=LeastAttainedService),)
