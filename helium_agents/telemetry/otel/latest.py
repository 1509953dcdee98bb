"""`Latest`: what was set last, for what is soon asked for or never."""

from __future__ import annotations

from itertools import islice
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

_MOST = 10_000


class Latest(dict[K, V]):
    """A dict that forgets what was set long ago.

    It keeps at least ten thousand, at most twice as many; ``latest[key] = value`` alone counts.
    """

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if len(self) > 2 * _MOST:
            for old in list(islice(self, _MOST)):
                del self[old]
