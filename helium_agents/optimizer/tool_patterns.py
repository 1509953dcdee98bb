"""Tool patterns: which tool a model calls after which, and where the arguments come from.

An argument may be what it always was, an argument of the call before, one more than that, or a
value in what that call gave back. Which of these it was is counted for each call site, as far as it
was the same each time. Values are in memory only: a pattern is not kept with a profile.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from helium_agents.optimizer.guesses import Guess

_MOST_SITES: Final = 256
_MOST_SOURCES: Final = 64
_DEEPEST: Final = 4
_WIDEST: Final = 8
_STYLES: Final = ((", ", ": "), (",", ":"))


class ToolStep(NamedTuple):
    """What a model has seen last: a call of a tool, and what came of it.

    Args:
        name: The tool; empty where no tool was called yet.
        arguments: As the model wrote them, JSON text.
        result: What the tool gave back; where there was none, what the model was asked.
    """

    name: str
    arguments: str
    result: str


_Source = tuple[Hashable, ...]


@dataclass(slots=True)
class _After:
    """What followed a tool at a site.

    Args:
        shapes: The tools called next with the names of their arguments and how these are written;
            `None` where none was called.
        sources: By shape and argument: where its value came from.
    """

    shapes: Counter[tuple[str, tuple[str, ...], int] | None] = field(default_factory=Counter)
    sources: dict[tuple[Any, str], Counter[_Source]] = field(default_factory=dict)


class ToolPatterns:
    """Learns which call of a tool follows which, and guesses the next."""

    def __init__(self) -> None:
        self._after: dict[tuple[str, str], _After] = {}

    def observe(self, site: str, before: ToolStep, name: str | None, arguments: str = "") -> None:
        """A model has answered.

        Args:
            site: Where it was asked.
            before: What it had seen last.
            name: The tool that it calls; `None` for none, or for more than one.
            arguments: Of that, as the model wrote them.
        """
        after = self._after.setdefault((site, before.name), _After())
        if len(self._after) > _MOST_SITES:
            del self._after[next(iter(self._after))]
        written = None if name is None else _object(arguments)
        if name is None or written is None:
            after.shapes[None] += 1
            return
        shape = (name, tuple(written), _style(written, arguments))
        after.shapes[shape] += 1
        known = list(_known(before))
        for argument, value in written.items():
            counts = after.sources.setdefault((shape, argument), Counter())
            counts.update(_sources(value, known))
            if len(counts) > _MOST_SOURCES:
                after.sources[shape, argument] = Counter(
                    dict(counts.most_common(_MOST_SOURCES // 2))
                )

    def guess(self, site: str, before: ToolStep) -> Guess | None:
        """The call that usually follows, as JSON with `name` and `arguments`, which is JSON text.

        Args:
            site: Where the model is asked.
            before: What it has seen last.
        """
        after = self._after.get((site, before.name))
        if after is None:
            return None
        ((shape, number),) = after.shapes.most_common(1)
        if shape is None:
            return None
        name, arguments, style = shape
        probability = number / (after.shapes.total() + 1)
        values: dict[str, Any] = {}
        known = dict(_known(before))
        for argument in arguments:
            found = _likeliest(after.sources[shape, argument], known)
            if found is None:
                return None
            values[argument], times = found
            probability *= min(1.0, times / number)
        text = json.dumps(values, ensure_ascii=False, separators=_STYLES[style])
        return Guess(json.dumps({"name": name, "arguments": text}), probability, "tools")


def _likeliest(counts: Counter[_Source], known: dict[_Source, Any]) -> tuple[Any, int] | None:
    """A value and how often it would have been right."""
    for source, times in counts.most_common():
        kind, *rest = source
        if kind == "always":
            return from_json(str(rest[0])), times
        if source in known:
            return known[source], times
    return None


def _sources(value: Any, known: list[tuple[_Source, Any]]) -> Iterator[_Source]:
    """All that would have given a value; what says most about others first."""
    yield from (source for source, other in known if _text(other) == _text(value))
    yield ("always", _text(value))


def _known(before: ToolStep) -> Iterator[tuple[_Source, Any]]:
    """What values may come from, by where they are."""
    for name, value in (_object(before.arguments) or {}).items():
        yield ("argument", name), value
        if type(value) is int:
            yield ("next", name), value + 1
    yield ("result",), before.result
    try:
        yield from _leaves(("result",), from_json(before.result), 0)
    except ValueError:
        return  # it is text


def _leaves(path: _Source, value: Any, depth: int) -> Iterator[tuple[_Source, Any]]:
    if depth and not isinstance(value, dict | list):
        yield path, value
    elif depth < _DEEPEST and isinstance(value, dict):
        for name in list(value)[:_WIDEST]:
            yield from _leaves((*path, name), value[name], depth + 1)
    elif depth < _DEEPEST and isinstance(value, list):
        for index, each in enumerate(value[:_WIDEST]):
            yield from _leaves((*path, index), each, depth + 1)


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = from_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _style(arguments: dict[str, Any], text: str) -> int:
    """How JSON is written: which separators give the same text, if any."""
    for style, separators in enumerate(_STYLES):
        if json.dumps(arguments, ensure_ascii=False, separators=separators) == text:
            return style
    return 0


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
