"""In what two calls differ, component by component, each shown from where the texts part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from helium_agents.diagnose.provenance import (
    ABSENT,
    DEFAULTS,
    Component,
    Message,
    Provenance,
    shortened,
)

_CONTEXT: Final = 24
_MAX_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """One component in which a stored call and the asked one differ.

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


def differences(stored: Provenance, asked: Provenance) -> tuple[Difference, ...]:
    """Everything in which two calls differ.

    Args:
        stored: The call whose answer is there.
        asked: The call that missed.
    """
    if stored.kind != asked.kind:
        return (Difference("kind of call", stored.kind, asked.kind),)
    return (
        *_of_settings(stored, asked),
        *_of_messages(stored.messages, asked.messages),
        *_of_arguments(stored, asked),
    )


def _of_settings(stored: Provenance, asked: Provenance) -> Iterator[Difference]:
    for name in dict.fromkeys((*stored.settings, *asked.settings)):
        old, new = (call.settings.get(name) for call in (stored, asked))
        if old == new:
            continue
        parts = _of_parts(stored, asked) if name in ("model", "version") else []
        if parts:
            yield from parts
        elif name == "schema" and old and new:
            yield _of_texts(name, old, new)
        else:
            default = Component(DEFAULTS.get(name, ABSENT))
            yield Difference(name, _shown(name, old or default), _shown(name, new or default))


def _of_parts(stored: Provenance, asked: Provenance) -> list[Difference]:
    """Which parts of the model, or definitions and constants of the source, have changed."""
    old, new = stored.made_of, asked.made_of
    if not old or not new:
        return []
    changed = [name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name)]
    if asked.kind == "operator":  # what else is named now follows from what has changed
        changed = [name for name in changed if name in old and name in new] or changed
    return [
        Difference(
            _part(asked, name),
            shortened(old.get(name, ABSENT), _MAX_SHOWN),
            shortened(new.get(name, ABSENT), _MAX_SHOWN),
        )
        for name in changed
    ]


def _part(call: Provenance, name: str) -> str:
    if call.kind == "llm":
        return f"model: {name}"
    return f"constant {name}" if " in " in name else f"source of {name}"


def _shown(name: str, value: Component) -> str:
    if name == "model":
        return f"{value.text} ({value.digest[:12]})"
    return shortened(str(value), _MAX_SHOWN)


def _of_messages(stored: tuple[Message, ...], asked: tuple[Message, ...]) -> Iterator[Difference]:
    if stored == asked:
        return
    if sorted(stored) == sorted(asked):
        both = stored, asked
        old, new = (", ".join(each.role for each in call) for call in both)
        if old == new:
            old, new = (", ".join(repr(shortened(each.text, 20)) for each in it) for it in both)
        yield Difference("order of messages", old, new, is_content=True)
        return
    matcher = SequenceMatcher(None, stored, asked, autojunk=False)
    for _, start, stop, new_start, new_stop in matcher.get_opcodes():
        num_pairs = min(stop - start, new_stop - new_start)
        for offset in range(num_pairs):
            at = new_start + offset
            yield from _of_message(at, stored[start + offset], asked[at])
        for message in stored[start + num_pairs : stop]:
            yield Difference("a message fewer", _quoted(message), ABSENT, is_content=True)
        for message in asked[new_start + num_pairs : new_stop]:
            yield Difference("a message more", ABSENT, _quoted(message), is_content=True)


def _quoted(message: Message) -> str:
    return f"{message.role} {shortened(message.text, _MAX_SHOWN)!r}"


def _of_message(position: int, stored: Message, asked: Message) -> Iterator[Difference]:
    if stored.role != asked.role:
        yield Difference(f"role of message {position}", stored.role, asked.role)
    if stored.content != asked.content:
        name = f"message {position} ({asked.role})"
        is_content = asked.role != "system"
        yield _of_texts(name, stored.content, asked.content, is_content=is_content)


def _of_arguments(stored: Provenance, asked: Provenance) -> Iterator[Difference]:
    for name in dict.fromkeys((*stored.arguments, *asked.arguments)):
        old, new = (call.arguments.get(name, Component(ABSENT)) for call in (stored, asked))
        if old.digest != new.digest:
            yield _of_texts(f"argument `{name}`", old, new, is_content=True, is_quoted=False)


def _of_texts(
    name: str,
    stored: Component,
    asked: Component,
    *,
    is_content: bool = False,
    is_quoted: bool = True,
) -> Difference:
    """Two texts from where they begin to differ, if that is in what is kept of them."""
    is_beyond = stored.text == asked.text
    start = _common(stored.text, asked.text)
    old, new = (_excerpt(each, 0 if is_beyond else start) for each in (stored, asked))
    if is_quoted:
        old, new = repr(old), repr(new)
    if is_beyond:
        new = f"equal as far as it is kept (digest {asked.digest[:8]})"
        return Difference(name, f"{old} (digest {stored.digest[:8]})", new, is_content)
    return Difference(name, old, new, is_content, start)


def _common(first: str, second: str) -> int:
    """How many characters two texts begin with in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))


def _excerpt(value: Component, start: int) -> str:
    text, begin, end = str(value), max(0, start - _CONTEXT), start + _MAX_SHOWN
    return f"{'...' if begin else ''}{text[begin:end]}{'...' if end < len(text) else ''}"
