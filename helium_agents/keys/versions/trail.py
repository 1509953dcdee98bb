"""How a walk came to a value, for the message that says why there is no version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from helium_agents.errors import VersionError


class Trail:
    """The names on the way from a root to where the walk is.

    Args:
        root: The function or class that the version is of.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self._labels: list[str] = []

    @contextmanager
    def named(self, label: str) -> Iterator[None]:
        """Say in messages that what is described inside is named so."""
        self._labels.append(label)
        try:
            yield
        except (VersionError, RecursionError):
            raise
        except Exception as error:  # of properties and metaclasses of the user's
            raise self.refusal(f"which raised {type(error).__name__}") from error
        finally:
            self._labels.pop()

    def refusal(self, reason: str) -> VersionError:
        """The error that says how the walk came to what is at fault."""
        trail = ", which ".join(f"names `{label}`" for label in self._labels)
        start = f"it {trail}, {reason}" if trail else f"it {reason.removeprefix('which ')}"
        advice = (
            'give the class `__helium_version__ = "1"`'
            if isinstance(self._root, type)
            else 'as in @operator(pure=True, version="1")'
        )
        return VersionError(
            f"the version of {self._root.__module__}.{self._root.__qualname__} cannot be computed: "
            f"{start}. Say which version it is, {advice}, and count up when its answers change."
        )
