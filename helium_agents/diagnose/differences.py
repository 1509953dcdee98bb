"""In what two calls differ, component by component, each shown from where the texts part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from operator import eq
from typing import Final

from helium_agents.diagnose.provenance import ABSENT, DEFAULTS, Component, Provenance

_CONTEXT: Final = 24
_MAX_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """One component in which a stored call and the asked one differ.

    Args:
        field: Which, e.g. ``temperature`` or ``argument `row```.
        stored: What the stored call had, cut to where it differs.
        asked: What the asked call has.
        at: The first character that differs; 0 where that is not in what is kept.
    """

    field: str
    stored: str
    asked: str
    at: int = 0

    @property
    def is_content(self) -> bool:
        """Whether it is what the call is about (a message, an argument), and not how it is made."""
        return self.field.startswith(("argument", "message")) and "(system)" not in self.field

    def __str__(self) -> str:
        where = f" (from character {self.at})" if self.at else ""
        return f"{self.field}{where}: {self.stored} -> {self.asked}"


def differences(stored: Provenance, asked: Provenance) -> tuple[Difference, ...]:
    """Everything in which two calls of one kind differ."""
    return tuple(_differences(stored, asked))


def _differences(stored: Provenance, asked: Provenance) -> Iterator[Difference]:
    for name, old, new in changed(stored.components(), asked.components()):
        parts = _of_parts(stored, asked, name) if name in ("model", "version") else []
        yield from parts or [_of_texts(name, old, new)]


def changed(
    stored: dict[str, Component], asked: dict[str, Component]
) -> Iterator[tuple[str, Component, Component]]:
    """The components that differ: name, and what each call has of it."""
    for name in stored | asked:
        old, new = stored.get(name), asked.get(name)
        if old != new:
            default = Component(DEFAULTS.get(name, ABSENT))
            yield name, old or default, new or default


def _of_parts(stored: Provenance, asked: Provenance, component: str) -> list[Difference]:
    """Which parts of the model, or definitions and constants of the source, have changed."""
    old, new = stored.made_of_component(component), asked.made_of_component(component)
    if not old or not new:
        return []
    names = [name for name in old | new if old.get(name) != new.get(name)]
    if component == "version":  # what else is named now follows from what has changed
        names = [name for name in names if name in old and name in new] or names
    return [
        Difference(_part(component, name), old.get(name, ABSENT), new.get(name, ABSENT))
        for name in names
    ]


def _part(component: str, name: str) -> str:
    if component == "model":
        return name
    return f"constant {name}" if " in " in name else f"source of {name}"


def _of_texts(name: str, stored: Component, asked: Component) -> Difference:
    """Two texts from where they begin to differ, if that is in what is kept of them."""
    if stored.text == asked.text:
        old = f"{_excerpt(stored, 0)} (digest {stored.digest[:8]})"
        new = f"equal as far as it is kept (digest {asked.digest[:8]})"
        return Difference(name, old, new)
    at = sum(takewhile(bool, map(eq, stored.text, asked.text)))
    return Difference(name, _excerpt(stored, at), _excerpt(asked, at), at)


def _excerpt(value: Component, start: int) -> str:
    text, begin, end = str(value), max(0, start - _CONTEXT), start + _MAX_SHOWN
    shown = text[begin:end].replace("\n", "\\n")
    return f"{'...' if begin else ''}{shown}{'...' if end < len(text) else ''}"
