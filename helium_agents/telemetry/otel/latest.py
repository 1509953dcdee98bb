"""`Latest`: what was set last, for what is soon asked for or never."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_MOST = 10_000


class Latest(Generic[K, V]):
    """A mapping that keeps what was set last: at least ten thousand, at most twice as many."""

    def __init__(self) -> None:
        self._new: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __setitem__(self, key: K, value: V) -> None:
        self._new[key] = value
        if len(self._new) > _MOST:
            self._old, self._new = self._new, {}

    def get(self, key: K) -> V | None:
        """The value, if it is there still."""
        return self._new.get(key) or self._old.get(key)

    def pop(self, key: K) -> V | None:
        """The value, if it is there still; then it is forgotten."""
        return self._new.pop(key, None) or self._old.pop(key, None)
