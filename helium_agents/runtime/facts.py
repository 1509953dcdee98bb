"""What a call asked, as a small JSON document kept beside its answer.

A key says that two calls differ; only the facts say in what. They are for people (`helium cache`):
nothing is ever looked up by them, so they may leave out what is long and name what is only known
by its digest. They are written once per computed call on the event loop, hence as plain dicts and
by the serialiser of pydantic's core.
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

from helium_agents.engines.engine import Model, PartedIdentity
from helium_agents.graph.encoding import digest, encode
from helium_agents.graph.node import Body, LlmNode, Node, OperatorNode
from helium_agents.graph.sampling import Sampling
from helium_agents.runtime.item import Item

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


def model_facts(engine: Model) -> bytes:
    """The `ModelFacts` of an engine, as they go into a document. May take as long as `identity`."""
    parts = engine.identity_parts() if isinstance(engine, PartedIdentity) else {}
    return to_json({"name": engine.name, "identity": engine.identity(), "parts": parts})


def write_facts(node: Node, model: bytes | None = None) -> bytes:
    """The facts of a call whose inputs' values are put in; empty for plain operators.

    What many calls have in common is kept as it is written: the rest takes a quarter of the time.

    Args:
        node: The call.
        model: `model_facts` of the engine of a model call.
    """
    caller = next(node.frame.callers(), None)
    identity = caller.body.identity if isinstance(caller, OperatorNode) else None
    if isinstance(node, LlmNode):
        call = node.call
        model = model or to_json({"name": call.model or "", "identity": node.model_key.hex()})
        head = _llm_head(model, call.sampling, call.json_schema, call.is_shared, identity)
        messages = [(role, _text("".join(map(str, parts)))) for role, parts in call.messages]
        facts = head + _dump(messages)
    elif isinstance(node, OperatorNode) and node.body.is_pure:
        facts = _operator(node, identity)
    else:
        return b""
    item = node.frame.item
    if isinstance(item, Item):
        row = item.admitted
        facts += b',"row":"%s","item":%d' % (row_name(row.digest).encode(), row.index)
    if node.is_drawn:
        facts += b',"is_drawn":true'
    return facts + b"}"


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


@lru_cache(maxsize=256)
def _llm_head(
    model: bytes, sampling: Sampling, schema: str | None, is_shared: bool, caller: str | None
) -> bytes:
    """The document of a model call up to its messages."""
    facts: dict[str, Any] = {"kind": "llm", "label": "llm", "sampling": _sampling(sampling)}
    if caller is not None:
        facts["caller"] = caller
    if schema is not None:
        facts["schema"] = schema
    if not is_shared:
        facts["is_shared"] = False
    return to_json(facts)[:-1] + b',"model":' + model + b',"messages":'


def _operator(node: OperatorNode, caller: str | None) -> bytes:
    """The document of an operator call, but for its end."""
    known = _known.get(node.body)
    if known is None or known.version != node.version:
        known = _known[node.body] = _definition(node.body, node.version)
    args, kwargs = node.args, node.kwargs
    arguments = dict(zip(known.parameters, args, strict=False))
    if len(args) > len(arguments):  # what goes into *args
        arguments |= {f"[{at}]": args[at] for at in range(len(arguments), len(args))}
    if kwargs:
        arguments |= kwargs
    facts: dict[str, Any] = {
        "arguments": {
            name: (_argument(value), xxh3_64_hexdigest(encode(value)))
            for name, value in arguments.items()
        }
    }
    if caller is not None:
        facts["caller"] = caller
    return known.head + b"," + _dump(facts)[1:-1]


class _Definition(NamedTuple):
    """How the facts of all calls of an operator begin, and what may be given by position."""

    version: bytes | str
    head: bytes
    parameters: tuple[str, ...]


_known: WeakKeyDictionary[Body, _Definition] = WeakKeyDictionary()


def _definition(body: Body, version: bytes | str) -> _Definition:
    parameters = inspect.signature(body.fn).parameters.values()
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    facts = {
        "kind": "operator",
        "label": body.name,
        "identity": body.identity,
        "version": version if isinstance(version, str) else version.hex(),
        "sources": body.sources,
    }
    names = tuple(it.name for it in parameters if it.kind in by_position)
    return _Definition(version, _dump(facts)[:-1], names)


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


def _dump(facts: Any) -> bytes:
    try:
        return to_json(facts)
    except PydanticSerializationError:  # lone surrogates, which UTF-8 cannot say
        return json.dumps(facts, ensure_ascii=False).encode("utf-8", "replace")
