"""Calls of tools: as a model writes them, as a program gets them, and beside a message's text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic_core import to_json

from helium_agents.graph.image import Image


class WrittenCall(NamedTuple):
    """A call of a tool as a model wrote it: the tool's name, and the arguments as JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that a model asks for.

    Args:
        name: The tool.
        arguments: By name, as values of the types that the tool's function is annotated with.
            Where they do not fit: what the JSON says, or nothing where it is no JSON object.
        id: What tells it from the other calls of its conversation.
        text: The arguments as the model wrote them, JSON; by default made of `arguments`.
        error: Why the call cannot be carried out: there is no such tool, or the arguments do not
            fit. `None` where it can.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    id: str = "call00000"
    text: str = ""
    error: str | None = None

    def __post_init__(self) -> None:
        if not self.text:
            object.__setattr__(self, "text", to_json(self.arguments).decode())


class Beside(NamedTuple):
    """What a message has beside its text.

    Args:
        tool_calls: The calls that the model asked for in it.
        reasoning: What the model thought before it said it.
        tool_call_id: The call whose result it is.
        tool_name: The tool whose result it is.
        images: Those whose marks are in the text, in order.
    """

    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    images: tuple[Image, ...] = ()

    def as_key(self) -> dict[str, Any]:
        """What differs from a message that is only text, by name, as part of keys."""
        given: dict[str, Any] = {
            "calls": [(call.id, call.name, call.text) for call in self.tool_calls] or None,
            "reasoning": self.reasoning,
            "answers": self.tool_call_id,
            "tool": self.tool_name,
            "images": [image.digest for image in self.images] or None,
        }
        return {name: value for name, value in given.items() if value is not None}


def call_id(number: int) -> str:
    """The id of a conversation's call, counted from 0: nine letters and digits, as Mistral wants.

    It is no random number, since it is part of the keys of all that follows.
    """
    return f"call{number:05d}"
