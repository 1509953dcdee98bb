"""Several engines of one model: more room, more speed, and one may die alone."""

from __future__ import annotations

from collections.abc import Sequence

from helium_agents.engines.engine import Engine


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
