"""How messages name a call."""

from __future__ import annotations

from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node

_SHOWN_CHARACTERS = 60


def describe(node: Node) -> str:
    """A call as an error message names it."""
    if isinstance(node, LlmNode):
        role, parts = node.call.messages[-1]
        text = "".join(part if isinstance(part, str) else "{...}" for part in parts)
        is_long = len(text) > _SHOWN_CHARACTERS
        return f"llm({role}({text[:_SHOWN_CHARACTERS] + '...' if is_long else text!r}))"
    return f"{node.label}(...)"
