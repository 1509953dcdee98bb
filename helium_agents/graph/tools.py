"""What `tools=` asks of a reply: calls of tools, whose arguments are read and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from helium_agents.errors import InvalidReply
from helium_agents.graph.reply import Choice
from helium_agents.graph.tool_call import Beside, ToolCall, WrittenCall, call_id
from helium_agents.keys.encoding import encode


@dataclass(frozen=True, slots=True, eq=False)
class Tool:
    """A tool that a model may call.

    Args:
        name: What the model calls it.
        description: What the model is told of it; may be empty.
        parameters: The JSON schema of its arguments, an object.
        read: Turns JSON text into arguments, and raises `ValueError` where they do not fit.
        function: What carries a call out; `None` of a tool that is only a JSON schema.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    read: Callable[[str], dict[str, Any]]
    function: Callable[..., Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The tool as OpenAI's interface has it, and as chat templates expect it."""
        function = {"name": self.name, "parameters": self.parameters}
        if self.description:
            function["description"] = self.description
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True, eq=False)
class ToolSet:
    """The tools of one call of a model, and whether one must be called.

    Args:
        tools: In order, no two of one name.
        choice: ``"auto"``: the model decides; ``"none"``: it is told of them and calls none;
            ``"required"``: it calls at least one; else the name of the one that it must call.

    Attributes:
        schemas: The tools as JSON, for the engine.
        key: Their part of keys.
    """

    tools: tuple[Tool, ...]
    choice: str = "auto"
    schemas: tuple[dict[str, Any], ...] = field(init=False)
    key: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        schemas = tuple(tool.as_json() for tool in self.tools)
        key: dict[str, Any] = {"tools": [to_json(schema) for schema in schemas]}
        if self.choice != "auto":
            key["choice"] = self.choice
        object.__setattr__(self, "schemas", schemas)
        object.__setattr__(self, "key", key)

    @property
    def must_call(self) -> bool:
        """Whether a reply without a call is none."""
        return self.choice not in ("auto", "none")

    def read(
        self, choice: Choice, past: Sequence[Beside | None], describe: Callable[[], str]
    ) -> tuple[ToolCall, ...]:
        """The calls in a model's answer.

        Args:
            choice: The answer.
            past: What the messages before it have beside their text; ids go on from there.
            describe: Names the call of the model, for messages.

        Raises:
            InvalidReply: There is none, and must be one; or one that `choice` rules out.
        """
        if self.must_call and not choice.tool_calls:
            how = f"tool_choice={self.choice!r}"
            if choice.finish_reason == "length":
                raise InvalidReply(
                    f"the reply to {describe()} was cut before the call of a tool, which {how} "
                    "asks for, was whole: give it a larger max_tokens"
                )
            raise InvalidReply(f"the reply to {describe()} calls no tool, which {how} asks for")
        if self.choice not in ("auto", "required"):
            for call in choice.tool_calls:
                if call.name != self.choice:
                    raise InvalidReply(
                        f"the reply to {describe()} calls {call.name}, which "
                        f"tool_choice={self.choice!r} rules out: the engine does not heed it"
                    )
        first = sum(len(beside.tool_calls) for beside in past if beside is not None)
        return tuple(
            [self._read(call, call_id(first + at)) for at, call in enumerate(choice.tool_calls)]
        )

    def _read(self, written: WrittenCall, id_: str) -> ToolCall:
        name, text = written
        error = None
        tool = next((tool for tool in self.tools if tool.name == name), None)
        if tool is None:
            names = ", ".join(tool.name for tool in self.tools)
            error = f"there is no tool {name!r}: choose one of {names}"
        else:
            try:
                return ToolCall(name, tool.read(text), id_, text)
            except ValueError as problem:
                error = f"the arguments of {name} do not fit: {problem}"
        return ToolCall(name, _json_object(text), id_, text, error)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = from_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def key_beside(tools: ToolSet | None, messages: Sequence[Beside | None]) -> bytes:
    """What a call's messages do not say, as part of keys; empty where that is nothing."""
    beside = {at: each.as_key() for at, each in enumerate(messages) if each is not None}
    if tools is None and not beside:
        return b""
    key = {} if tools is None else dict(tools.key)
    if beside:
        key["beside"] = beside
    return encode(key)
