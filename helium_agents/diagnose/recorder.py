"""The recorder: writes down what a session's calls were. The port that the runtime knows.

It is called once for each computed call, on the event loop, hence it makes plain tuples, which are
written five times as fast as named ones; `Provenance` says what they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from pydantic_core import to_json
from xxhash import xxh3_64_hexdigest

from helium_agents.diagnose.provenance import (
    DEFAULTS,
    MAX_CHARACTERS,
    MODEL_PART,
    provenance_record,
    row_name,
    setting,
)
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.sampling import Sampling
from helium_agents.keys.encoding import encode

_VERSION_DIGITS = 16

_Component = tuple[str, ...]
"""A `Component`: a text, or how it begins and its digest."""


class DescribedModels(Protocol):
    """What it is told of a session's models."""

    @property
    def names(self) -> str:
        """What a person calls them."""
        ...

    @property
    def identity(self) -> bytes:
        """Of all of them together."""
        ...

    @property
    def made_of(self) -> Mapping[str, str]:
        """What that is made of, by name."""
        ...

    def about(self, model: str | None) -> tuple[str, Mapping[str, str]]:
        """The name of the model that calls know by a name, and what its identity is made of."""
        ...


class Recorder:
    """Writes the `Provenance` of calls."""

    def __init__(self, models: DescribedModels) -> None:
        self._all = models
        self._models: dict[str | None, tuple[str, dict[str, str]]] = {}

    def record(self, node: Node) -> bytes:
        """The provenance of a call whose inputs' values are put in; empty for plain operators."""
        if isinstance(node, LlmNode):
            found = self._of_model_call(node)
        elif isinstance(node, OperatorNode) and node.body.is_pure:
            found = _of_operator_call(node, self._all)
        else:
            return b""
        caller = next(node.frame.callers(), None)
        if isinstance(caller, OperatorNode):
            found["caller"] = caller.body.identity
        item = node.frame.item
        if item is not None:
            found |= {"row": row_name(item.admitted.digest), "item": item.admitted.index}
        if node.is_drawn:
            found["is_drawn"] = True
        return provenance_record(to_json(found))

    def _of_model_call(self, node: LlmNode) -> dict[str, Any]:
        call = node.call
        if call.model not in self._models:
            name, parts = self._all.about(call.model)
            self._models[call.model] = name, _model_parts(parts)
        name, made_of = self._models[call.model]
        settings = {"model": (name, node.model_identity.decode()), **_sampling(call.sampling)}
        if call.json_schema is not None:
            settings["schema"] = _component(call.json_schema)
        if call.tools is not None:
            settings["tools"] = _component(to_json(call.tools.schemas).decode())
            settings["tool_choice"] = (call.tools.choice,)
        found: dict[str, Any] = {"kind": "llm", "label": node.label, "settings": settings}
        found["made_of"] = made_of
        texts = [(role, "".join(map(str, parts))) for role, parts in call.messages]
        for at, beside in enumerate(call.beside):
            if beside is not None:
                role, text = texts[at]
                texts[at] = role, text + to_json(beside.as_key()).decode()
        found["messages"] = [(role, *_component(text)) for role, text in texts]
        if not call.is_shared:
            found["is_shared"] = False
        return found


@lru_cache(maxsize=256)
def _sampling(sampling: Sampling) -> dict[str, _Component]:
    given = {name: setting(getattr(sampling, name)) for name in DEFAULTS}
    return {
        name: _component(text)
        for name, text in given.items()
        if name == "max_tokens" or text != DEFAULTS[name]
    }


def _model_parts(made_of: Mapping[str, str]) -> dict[str, str]:
    return {MODEL_PART + part: "".join(_component(text)) for part, text in made_of.items()}


def _of_operator_call(node: OperatorNode, models: DescribedModels) -> dict[str, Any]:
    body, version = node.body, node.version
    names = _positional(body.fn)
    names += tuple(f"[{at}]" for at in range(len(names), len(node.args)))  # into *args
    arguments = dict(zip(names, node.args, strict=False)) | node.kwargs
    text = version if isinstance(version, str) else version.hex()[:_VERSION_DIGITS]
    settings: dict[str, _Component] = {
        "operator": (body.identity,),
        "version": _component(text),
        "model": (models.names, models.identity.hex()[:_VERSION_DIGITS]),
    }
    return {
        "kind": "operator",
        "label": node.label,
        "settings": settings,
        "made_of": {**body.sources, **_model_parts(models.made_of)},
        "arguments": {
            _unicode(name): (_beginning(value), xxh3_64_hexdigest(encode(value)))
            for name, value in arguments.items()
        },
    }


_positional_names: WeakKeyDictionary[Callable[..., Any], tuple[str, ...]] = WeakKeyDictionary()


def _positional(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The names of what may be given by position."""
    names = _positional_names.get(fn)
    if names is None:
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(fn).parameters.values()
        names = tuple(each.name for each in parameters if each.kind in kinds)
        _positional_names[fn] = names
    return names


def _component(text: str) -> _Component:
    if len(text) <= MAX_CHARACTERS:
        return (_unicode(text),)
    digest = xxh3_64_hexdigest(text.encode("utf-8", "surrogatepass"))
    return _unicode(text[:MAX_CHARACTERS]), digest


def _unicode(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot say."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _beginning(value: Any) -> str:
    """How the representation of an argument begins."""
    if type(value) is str:
        value = value[:MAX_CHARACTERS]  # its representation is the longer
    try:
        return _unicode(repr(value)[:MAX_CHARACTERS])
    except Exception:  # the user's own code, and nothing depends on it
        return f"<{type(value).__name__}>"
