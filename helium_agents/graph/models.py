"""What keys know of the models of a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Model(Protocol):
    """What keys know of a model."""

    @property
    def identity(self) -> bytes:
        """What it is, as part of keys."""
        ...

    @property
    def truncates(self) -> bool:
        """Whether its answers can be cut."""
        ...


class Models(Protocol):
    """The models of a session."""

    @property
    def identity(self) -> bytes:
        """What all of them are, as part of keys."""
        ...

    def __getitem__(self, name: str | None, /) -> Model:
        """The one that calls know by a name; `None` is the default. Another name raises."""
        ...


@dataclass(frozen=True)
class NoModels:
    """The models of calls outside any session, each of which stands for all: none answers."""

    identity: bytes = b""
    truncates: bool = True

    def __getitem__(self, name: str | None, /) -> Model:
        """By whatever name."""
        return self


NO_MODELS = NoModels()
