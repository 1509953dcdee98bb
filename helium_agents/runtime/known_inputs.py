"""A call whose inputs are known, with their values put in, and what of its results is refused."""

from __future__ import annotations

from typing import Any

from helium_agents.errors import EncodingError, PromptError
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.ref import LEAK_MARK
from helium_agents.graph.values import as_text
from helium_agents.keys.encoding import encode_result


def with_inputs(node: Node) -> Node:
    """A call whose inputs are there, with their values in place of them."""
    values = [source.outcome.get() for source in node.inputs if source.outcome is not None]
    if isinstance(node, LlmNode):
        return node.with_values(tuple(map(_text_of, values, node.inputs)))
    assert isinstance(node, OperatorNode)
    return node.with_values(tuple(values))


def _text_of(value: Any, source: Node) -> str:
    text = as_text(value, f"the value of {source.label}(...) in a prompt")
    if LEAK_MARK in text:
        raise PromptError(
            f"the value of {source.label}(...) in a prompt contains the representation of a Ref "
            f"instead of its value: await it in {source.label}"
        )
    return text


def check_result(node: Node, value: Any) -> None:
    """Refuse a result of a pure operator that cannot be shared."""
    try:
        encode_result(value)
    except EncodingError as error:
        raise EncodingError(
            f"{node.label}(...) is pure, so its result is shared and remembered, but {error}",
            error.path,
        ) from error.__cause__
