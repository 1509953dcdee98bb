"""Provenance: what a remembered call was, each of its components as a beginning and a digest.

A key says that two calls differ; only the provenance says in what. It is for people
(`helium cache`): nothing is ever looked up by it. Long texts are told apart by their digests.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from helium_agents.errors import shortened
from helium_agents.graph.sampling import Sampling

MAX_CHARACTERS: Final = 200
"""So much is kept of the text of a component."""

_PLAIN_BYTES: Final = 1000
_MAX_BYTES: Final = 2**26  # a store may hold what others wrote

MODEL_PART: Final = "model: "
"""How the names of what models are made of begin."""

ABSENT: Final = "none"
"""Stands for a component that a call does not have."""


class Component(NamedTuple):
    """Something that a call was made of.

    Args:
        text: How it begins.
        digest: Of all of it; empty where the text is all of it.
    """

    text: str
    digest: str = ""

    def __str__(self) -> str:
        is_cut = self.digest and len(self.text) == MAX_CHARACTERS
        return f"{self.text}..." if is_cut else self.text


class MessageComponent(NamedTuple):
    """A message of a model call: who speaks, and a component."""

    role: str
    text: str
    digest: str = ""

    @property
    def content(self) -> Component:
        """What is said."""
        return Component(self.text, self.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a call asked, and for whom.

    Args:
        kind: Whether a model or a pure operator was called.
        label: The label of the entry: the operator's name, or ``llm``.
        settings: What decides how it is answered. Of a model call the ``model`` (its name, and its
            identity as digest), `max_tokens`, what else of `Sampling` is not as by default, and
            the ``schema``, the ``tools`` and
            the `tool_choice`; of an operator's call the ``operator``, its ``version`` and the
            ``model`` or models of the session, as its body may ask any.
        made_of: What the model's identity and the version are made of, by name; parts of a model
            are named ``model: part``.
        messages: The conversation, of a model call.
        arguments: By name, of an operator's call.
        caller: Identity of the operator whose body made the call, if there is one.
        row: Digest of the row (of the outermost `map`) for which the call was computed.
        item: That row's index in its input.
        is_drawn: Whether the answer depends on an unseeded draw.
        is_shared: Whether the call lets its answer be shared.
    """

    kind: Literal["llm", "operator"]
    label: str
    settings: dict[str, Component]
    made_of: dict[str, str] = field(default_factory=dict)
    messages: tuple[MessageComponent, ...] = ()
    arguments: dict[str, Component] = field(default_factory=dict)
    caller: str | None = None
    row: str | None = None
    item: int | None = None
    is_drawn: bool = False
    is_shared: bool = True

    def components(self) -> dict[str, Component]:
        """Everything that the call's key is made of, by the names that a person reads."""
        found = dict(self.settings)
        for at, (role, *content) in enumerate(self.messages):
            found[f"message {at} ({role})"] = Component(*content)
        found.update((f"argument `{name}`", each) for name, each in self.arguments.items())
        return found

    def made_of_component(self, component: str) -> dict[str, str]:
        """What the ``model`` or the ``version`` is made of."""
        is_model = component == "model"
        parts = self.made_of.items()
        return {name: it for name, it in parts if name.startswith(MODEL_PART) is is_model}

    def mentions(self, text: str) -> bool:
        """Whether a text is in what is known of the messages or arguments, in any case."""
        asked = [each.text for each in self.messages]
        asked += [each.text for each in self.arguments.values()]
        return any(text.casefold() in each.casefold() for each in asked)

    def first_words(self, max_characters: int = 60) -> str:
        """What was asked, in one line: the last message, or the arguments."""
        if self.kind == "llm":
            text = self.messages[-1].text if self.messages else ""
        else:
            text = ", ".join(f"{name}={each.text}" for name, each in self.arguments.items())
        return shortened(" ".join(text.split()), max_characters)


_PROVENANCE: Final[TypeAdapter[Provenance]] = TypeAdapter(Provenance)


def provenance_record(document: bytes) -> bytes:
    """A document as it is kept: compressed where that is worth it."""
    return zlib.compress(document) if len(document) > _PLAIN_BYTES else document


def read_provenance(record: bytes | None) -> Provenance | None:
    """The provenance in a record; `None` where there is none, or one of another release."""
    if not record:
        return None
    try:
        document = record
        if record[:1] != b"{":
            document = zlib.decompressobj().decompress(record, _MAX_BYTES)
        return _PROVENANCE.validate_json(document)
    except (ValidationError, zlib.error):
        return None


def row_name(row_digest: bytes) -> str:
    """How a provenance names a row, given the fingerprint by which `map` knows it."""
    return row_digest[:16].hex()


def setting(value: Any) -> str:
    """A sampling parameter as text."""
    return ABSENT if value in (None, (), []) else json.dumps(value, ensure_ascii=False)


DEFAULTS: Final[Mapping[str, str]] = {
    each.name: setting(each.default) for each in fields(Sampling) if each.init
}
"""Sampling parameters where they are not in a provenance."""
