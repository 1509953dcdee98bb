"""What an operator runs: its function, its version, and how it may be run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

from helium_agents.keys.encoding import digest
from helium_agents.keys.versions.version import Version, version_of


@dataclass(eq=False)
class Body:
    """The body of an operator.

    Args:
        fn: The coroutine function.
        name: What a person calls the operator.
        is_pure: Whether equal calls have equal results and no effects.
        explicit_version: Stands for the source where given.
        retries: Further attempts after a failure that `retry_on` names.
        retry_on: The classes of exceptions that are worth a further attempt.
        timeout_s: Seconds that a waiter grants one call, all attempts together, counted from when
            the body begins.
        predict: Guesses the result from the arguments; see `operator`.
    """

    fn: Callable[..., Awaitable[Any]]
    name: str
    is_pure: bool
    explicit_version: str | None = None
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = ()
    timeout_s: float | None = None
    predict: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        self.owner: type | None = None
        self._source = Version(self.fn)
        self.identity = f"{self.fn.__module__}:{getattr(self.fn, '__qualname__', self.name)}"

    @property
    def version(self) -> bytes | str:
        """The explicit version, or the digest of everything the function's source depends on now.

        Raises:
            VersionError: It cannot be computed.
        """
        if self.explicit_version is not None:
            return self.explicit_version
        version = self._source.digest()
        return version if self.owner is None else digest(version + version_of(self.owner).digest())

    @property
    def sources(self) -> Mapping[str, str]:
        """Digests of what the version is made of, by name; none where it is explicit."""
        if self.explicit_version is not None:
            return {}
        parts = self._source.parts()
        return parts if self.owner is None else {**version_of(self.owner).parts(), **parts}

    def of(self, owner: type) -> Body:
        """The same as a method of `owner`, which may override what the method calls."""
        bound = copy(self)
        bound.owner = owner
        return bound
