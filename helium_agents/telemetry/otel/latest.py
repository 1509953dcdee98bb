"""`Latest`: a dict of what came last, for what is soon asked for or never."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

_MOST = 10_000


class Latest(dict[K, V]):
    """Forgets what was set first once it has ten thousand."""

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if len(self) > _MOST:
            del self[next(iter(self))]
