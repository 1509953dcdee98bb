"""What a call asked, as a small JSON document kept beside its answer.

A key says that two calls differ; only the facts say in what. They are for people (`helium cache`):
nothing is ever looked up by them, so they may leave out what is long and name what is only known
by its digest. They are written once per computed call on the event loop, hence as plain dicts and
by the serialiser of pydantic's core: 4 µs and 1 µs per kilobyte of text.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple
from weakref import WeakKeyDictionary

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json
from xxhash import xxh3_64_hexdigest

from helium_agents.engines.engine import Engine, PartedIdentity
from helium_agents.graph.encoding import digest, encode
from helium_agents.graph.node import Body, LlmNode, Node, OperatorNode
from helium_agents.graph.sampling import Sampling
from helium_agents.graph.version import version_parts
from helium_agents.runtime.map import Item

_MAX_TEXT: Final = 65_536
_KEPT_TAIL: Final = 8_192
_MAX_ARGUMENT: Final = 500

DEFAULTS: Final[Mapping[str, Any]] = {
    each.name: each.default for each in fields(Sampling) if each.init
}
"""Sampling parameters that facts leave out where they are so."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model of a call.

    Args:
        name: What a person calls it.
        identity: Digest of everything that decides an answer.
        parts: What the identity is made of, where the engine says so.
    """

    name: str
    identity: str
    parts: dict[str, str] = field(default_factory=dict)


class Argument(NamedTuple):
    """An argument of an operator: its representation, perhaps cut, and a digest of all of it."""

    text: str
    digest: str


class Message(NamedTuple):
    """A message of a model call."""

    role: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """What facts of all calls have.

    Args:
        label: The label of the entry: the operator's name, or ``llm``.
        caller: Identity of the operator whose body made the call, if there is one.
        row: Digest of the row (of the outermost `map`) for which the call was computed.
        item: That row's index in its input.
        is_drawn: Whether the answer depends on an unseeded draw.
        is_shared: Whether the call lets its answer be shared.
    """

    label: str
    caller: str | None = None
    row: str | None = None
    item: int | None = None
    is_drawn: bool = False
    is_shared: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmFacts(CallFacts):
    """What a model call asked.

    Args:
        model: Which model.
        messages: The conversation.
        sampling: How to sample: `max_tokens`, and what is not as by default.
        schema: Text of the JSON schema.
    """

    kind: Literal["llm"] = "llm"
    model: ModelFacts
    messages: tuple[Message, ...]
    sampling: dict[str, Any]
    schema: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFacts(CallFacts):
    """What a call of a pure operator asked.

    Args:
        identity: The function, ``module:qualname``.
        version: The explicit version, or the digest of the source in hex.
        sources: Digests of what that version is made of, by name.
        arguments: By name.
    """

    kind: Literal["operator"] = "operator"
    identity: str
    version: str
    sources: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Argument]


Facts = LlmFacts | OperatorFacts

_FACTS: Final[TypeAdapter[Facts]] = TypeAdapter(Facts)


def model_facts(engine: Engine) -> dict[str, Any]:
    """The `ModelFacts` of an engine, as they go into a document. May take as long as `identity`."""
    parts = engine.identity_parts() if isinstance(engine, PartedIdentity) else {}
    return {"name": engine.name, "identity": engine.identity(), "parts": parts}


def write_facts(node: Node, model: Mapping[str, Any] | None = None) -> bytes:
    """The facts of a call whose inputs' values are put in; empty for plain operators.

    Args:
        node: The call.
        model: `model_facts` of the engine of a model call.
    """
    if isinstance(node, LlmNode):
        facts = _llm(node, model)
    elif isinstance(node, OperatorNode) and node.body.is_pure:
        facts = _operator(node)
    else:
        return b""
    facts["label"] = node.label
    caller = next(node.frame.callers(), None)
    if caller is not None:
        assert isinstance(caller, OperatorNode)
        facts["caller"] = caller.body.identity
    item = node.frame.item
    if isinstance(item, Item):
        facts["row"], facts["item"] = row_name(item.admitted.digest), item.admitted.index
    if node.is_drawn:
        facts["is_drawn"] = True
    return _dump(facts)


def read_facts(data: bytes | None) -> Facts | None:
    """The facts in a document; `None` where there are none, or of another release."""
    if not data:
        return None
    try:
        return _FACTS.validate_json(data)
    except ValidationError:
        return None


def row_name(row_digest: bytes) -> str:
    """How facts name a row, given the fingerprint by which `map` knows it."""
    return row_digest[:16].hex()


def first_words(facts: Facts, max_characters: int = 60) -> str:
    """What a call asked, in one line: the last message, or the arguments."""
    if isinstance(facts, LlmFacts):
        text = facts.messages[-1].text if facts.messages else ""
    else:
        text = ", ".join(f"{name}={each.text}" for name, each in facts.arguments.items())
    text = " ".join(text[: 4 * max_characters].split())
    return text if len(text) <= max_characters else f"{text[: max_characters - 3]}..."


def _llm(node: LlmNode, model: Mapping[str, Any] | None) -> dict[str, Any]:
    call = node.call
    facts: dict[str, Any] = {
        "kind": "llm",
        "model": model or {"name": call.model or "", "identity": node.model_key.hex()},
        "messages": [(role, _text("".join(map(str, parts)))) for role, parts in call.messages],
        "sampling": _sampling(call.sampling),
    }
    if call.json_schema is not None:
        facts["schema"] = call.json_schema
    if not call.is_shared:
        facts["is_shared"] = False
    return facts


def _operator(node: OperatorNode) -> dict[str, Any]:
    known = _known.get(node.body)
    if known is None:
        known = _known[node.body] = _definition(node.body)
    args, kwargs = node.args, node.kwargs
    arguments = dict(zip(known.parameters, args, strict=False))
    if len(args) > len(arguments):  # what goes into *args
        arguments |= {f"[{at}]": args[at] for at in range(len(arguments), len(args))}
    if kwargs:
        arguments |= kwargs
    written = {
        name: (_argument(value), xxh3_64_hexdigest(encode(value)))
        for name, value in arguments.items()
    }
    return {**known.facts, "arguments": written}


class _Definition(NamedTuple):
    """What facts of all calls of an operator share, and what may be given by position."""

    facts: dict[str, Any]
    parameters: tuple[str, ...]


_known: WeakKeyDictionary[Body, _Definition] = WeakKeyDictionary()


def _definition(body: Body) -> _Definition:
    parameters = inspect.signature(body.fn).parameters.values()
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    sources: Mapping[str, str] = {}
    if body.explicit_version is None:
        sources = version_parts(body.fn)
        if body.owner is not None:
            sources = {**version_parts(body.owner), **sources}
    version = body.version
    facts = {
        "kind": "operator",
        "identity": body.identity,
        "version": version if isinstance(version, str) else version.hex(),
        "sources": sources,
    }
    return _Definition(facts, tuple(it.name for it in parameters if it.kind in by_position))


@lru_cache(maxsize=256)
def _sampling(sampling: Sampling) -> dict[str, Any]:
    given = {name: getattr(sampling, name) for name in DEFAULTS}
    return {
        name: value
        for name, value in given.items()
        if name == "max_tokens" or value != DEFAULTS[name]
    }


def _argument(value: Any) -> str:
    if type(value) is str:  # whose representation may be long
        value, is_cut = value[:_MAX_ARGUMENT], len(value) > _MAX_ARGUMENT
        return repr(value) + "..." if is_cut else repr(value)
    try:
        text = repr(value)
    except Exception:  # the user's own code, and nothing depends on it
        return f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_ARGUMENT else f"{text[:_MAX_ARGUMENT]}..."


def _text(text: str) -> str:
    if len(text) <= _MAX_TEXT:
        return text
    name = digest(text.encode("utf-8", "surrogatepass")).hex()[:16]
    left_out = len(text) - _MAX_TEXT
    head, tail = text[: _MAX_TEXT - _KEPT_TAIL], text[-_KEPT_TAIL:]
    return f"{head}\n[{left_out:,} characters left out of the text {name}]\n{tail}"


def _dump(facts: dict[str, Any]) -> bytes:
    try:
        return to_json(facts)
    except PydanticSerializationError:  # lone surrogates, which UTF-8 cannot say
        return json.dumps(facts, ensure_ascii=False).encode("utf-8", "replace")
