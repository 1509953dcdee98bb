"""In what two calls differ, field by field, each with a short diff for a person."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

from helium_agents.runtime.facts import (
    DEFAULTS,
    Facts,
    LlmFacts,
    Message,
    ModelFacts,
    OperatorFacts,
)

_CONTEXT: Final = 24
_MAX_SHOWN: Final = 60
_MAX_COMPARED: Final = 20_000

Likeness = Callable[[str, str], float]
"""How alike two texts are, from 0 to 1."""

ABSENT: Final = "none"
"""Stands for a field that one of the calls does not have."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which a stored call and the asked one differ.

    Args:
        field: Which, e.g. ``temperature`` or ``argument `row```.
        stored: What the stored call had, cut to where it differs.
        asked: What the asked call has.
        is_content: Whether it is what the call is about (a message, an argument), and not how it
            is answered.
        at: The first character that differs, of two texts.
    """

    field: str
    stored: str
    asked: str
    is_content: bool = False
    at: int | None = None

    def __str__(self) -> str:
        where = f" (from character {self.at})" if self.at else ""
        return f"{self.field}{where}: {self.stored} -> {self.asked}"


def likeness(first: str, second: str) -> float:
    """The share of two texts that they begin and end with in common, from 0 to 1.

    Fast enough for a million texts, since slices compare at memory speed.
    """
    longest = max(len(first), len(second))
    if not longest:
        return 1.0
    start = _common(first, second)
    return (start + _common_end(first, second, start)) / longest


def word_likeness(first: str, second: str) -> float:
    """The share of the words that two texts have in common; of their first 2,000 each."""
    words, others = (text[:_MAX_COMPARED].split()[:2000] for text in (first, second))
    return float(SequenceMatcher(None, words, others, autojunk=False).quick_ratio())


def differences(stored: Facts, asked: Facts) -> tuple[Difference, ...]:
    """Everything in which two calls differ.

    Args:
        stored: The call whose answer is there.
        asked: The call that missed.
    """
    if isinstance(stored, LlmFacts) and isinstance(asked, LlmFacts):
        return tuple(_of_llm(stored, asked))
    if isinstance(stored, OperatorFacts) and isinstance(asked, OperatorFacts):
        return tuple(_of_operator(stored, asked))
    return (Difference("kind of call", stored.kind, asked.kind),)


# --- model calls ---------------------------------------------------------------------------------


def _of_llm(stored: LlmFacts, asked: LlmFacts) -> Iterator[Difference]:
    if stored.model.identity != asked.model.identity:
        yield from _of_models(stored.model, asked.model)
    yield from _of_sampling(stored.sampling, asked.sampling)
    if stored.schema != asked.schema:
        yield _of_texts("schema", stored.schema or "", asked.schema or "")
    yield from _of_messages(stored.messages, asked.messages)


def _of_models(stored: ModelFacts, asked: ModelFacts) -> Iterator[Difference]:
    names = list(dict.fromkeys((*stored.parts, *asked.parts)))
    changed = [name for name in names if stored.parts.get(name) != asked.parts.get(name)]
    if not changed or not stored.parts or not asked.parts:
        yield Difference("model", _named(stored), _named(asked))
    for name in changed if stored.parts and asked.parts else ():
        old, new = (_short(model.parts.get(name, ABSENT)) for model in (stored, asked))
        yield Difference(f"model: {name}", old, new)


def _named(model: ModelFacts) -> str:
    return f"{model.name} ({model.identity[:12]})"


def _of_sampling(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*DEFAULTS, *stored, *asked)):
        old, new = (_plain(facts.get(name, DEFAULTS.get(name))) for facts in (stored, asked))
        if old != new:
            yield Difference(name, old, new)


def _plain(value: Any) -> str:
    return ABSENT if value in (None, [], ()) else json.dumps(value, ensure_ascii=False)


def _of_messages(stored: tuple[Message, ...], asked: tuple[Message, ...]) -> Iterator[Difference]:
    if stored == asked:
        return
    if sorted(stored) == sorted(asked):
        old, new = (", ".join(each.role for each in facts) for facts in (stored, asked))
        if old == new:
            moved = next(
                i for i, pair in enumerate(zip(stored, asked, strict=True)) if len({*pair}) > 1
            )
            old, new = (f"{facts[moved].text[:_MAX_SHOWN]!r} first" for facts in (stored, asked))
        yield Difference("order of messages", old, new, is_content=True)
        return
    matcher = SequenceMatcher(None, stored, asked, autojunk=False)
    for _, start, stop, new_start, new_stop in matcher.get_opcodes():
        num_pairs = min(stop - start, new_stop - new_start)
        for offset in range(num_pairs):
            at = new_start + offset
            yield from _of_message(at, stored[start + offset], asked[at])
        for message in stored[start + num_pairs : stop]:
            shown = f"{message.role} {_short(message.text)!r}"
            yield Difference("a message fewer", shown, ABSENT, is_content=True)
        for message in asked[new_start + num_pairs : new_stop]:
            shown = f"{message.role} {_short(message.text)!r}"
            yield Difference("a message more", ABSENT, shown, is_content=True)


def _of_message(position: int, stored: Message, asked: Message) -> Iterator[Difference]:
    if stored.role != asked.role:
        yield Difference(f"role of message {position}", stored.role, asked.role)
    if stored.text != asked.text:
        name = f"message {position} ({asked.role})"
        is_content = asked.role != "system"
        yield _of_texts(name, stored.text, asked.text, is_content=is_content)


# --- operators -----------------------------------------------------------------------------------


def _of_operator(stored: OperatorFacts, asked: OperatorFacts) -> Iterator[Difference]:
    if stored.identity != asked.identity:
        yield Difference("operator", stored.identity, asked.identity)
    if stored.version != asked.version:
        yield from _of_versions(stored, asked)
    for name in dict.fromkeys((*stored.arguments, *asked.arguments)):
        old, new = stored.arguments.get(name), asked.arguments.get(name)
        field = f"argument `{name}`"
        if old is None or new is None:
            before, after = (ABSENT if it is None else _short(it.text) for it in (old, new))
            yield Difference(field, before, after, is_content=True)
        elif old.digest != new.digest:
            if old.text == new.text:
                yield Difference(
                    field, f"{_short(old.text)} (digest {old.digest[:8]})",
                    f"equal as far as it is kept (digest {new.digest[:8]})", is_content=True,
                )  # fmt: skip
            else:
                yield _of_texts(field, old.text, new.text, is_content=True, quoted=False)


def _of_versions(stored: OperatorFacts, asked: OperatorFacts) -> Iterator[Difference]:
    """Which definition or constant has changed, where the source decides the version."""
    old, new = stored.sources, asked.sources
    changed = [name for name in dict.fromkeys((*new, *old)) if old.get(name) != new.get(name)]
    if not old or not new or not changed:
        field = "version" if not (old and new) else f"source of {asked.identity}"
        yield Difference(field, stored.version[:12], asked.version[:12])
        return
    in_both = [name for name in changed if name in old and name in new]
    for name in in_both or changed:  # what else is named now follows from what has changed
        field = f"source of {name}" if " in " not in name else f"constant {name}"
        yield Difference(field, old.get(name, ABSENT), new.get(name, ABSENT))


# --- texts ---------------------------------------------------------------------------------------


def _of_texts(
    name: str,
    stored: str,
    asked: str,
    *,
    is_content: bool = False,
    quoted: bool = True,
) -> Difference:
    """Two texts from where they begin to differ, up to where they are equal again."""
    start = _common(stored, asked)
    end = _common_end(stored, asked, start)
    old, new = (_excerpt(text, start, len(text) - end) for text in (stored, asked))
    if quoted:
        old, new = repr(old), repr(new)
    return Difference(name, old, new, is_content, start)


def _excerpt(text: str, start: int, stop: int) -> str:
    begin, stop = max(0, start - _CONTEXT), min(stop, start + _MAX_SHOWN)
    end = min(len(text), stop + _CONTEXT)
    return f"{'...' if begin else ''}{text[begin:end]}{'...' if end < len(text) else ''}"


def _common(first: str, second: str) -> int:
    """How many characters two texts begin with in common."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(first: str, second: str, start: int) -> int:
    """How many characters two texts end with in common, apart from those they begin with."""
    low, high = 0, min(len(first), len(second)) - start
    while low < high:
        middle = (low + high + 1) // 2
        if first[len(first) - middle :] == second[len(second) - middle :]:
            low = middle
        else:
            high = middle - 1
    return low


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
