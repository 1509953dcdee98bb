"""Messages of LangChain as ours, and replies of ours as LangChain's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_openai_image_block,
)
from langchain_core.messages.tool import invalid_tool_call, tool_call

from helium_agents.authoring.images import image
from helium_agents.authoring.messages import Message, Prompt, assistant, system, tool, user
from helium_agents.errors import PromptError
from helium_agents.graph.image import Image
from helium_agents.graph.reply import Reply
from helium_agents.graph.tool_call import ToolCall


def to_ours(messages: Sequence[BaseMessage]) -> list[Message]:
    """A conversation of LangChain.

    Raises:
        PromptError: A message has something other than text, images and calls of tools in it.
    """
    names: dict[str, str] = {}  # of tools, by the ids of their calls
    ours: list[Message] = []
    for message in messages:
        content = _content_of(message)
        if isinstance(message, AIMessage):
            asked = message.tool_calls
            calls = [ToolCall(call["name"], call["args"], call["id"] or "") for call in asked]
            names.update((call.id, call.name) for call in calls)
            ours.append(assistant(content, calls))
        elif isinstance(message, ToolMessage):
            id_ = message.tool_call_id
            ours.append(tool(content, ToolCall(message.name or names.get(id_, ""), id=id_)))
        elif isinstance(message, HumanMessage):
            ours.append(user(content))
        elif isinstance(message, SystemMessage):
            ours.append(system(content))
        elif isinstance(message, ChatMessage):
            ours.append(Message(message.role, content))
        else:
            raise PromptError(f"a {type(message).__name__} is no message that a model is given")
    return ours


def to_theirs(reply: Reply[Any]) -> dict[str, Any]:
    """What a reply says, as the arguments of an `AIMessage`."""
    calls = [tool_call(name=c.name, args=json.loads(c.text), id=c.id) for c in _fit(reply)]
    invalid = [
        invalid_tool_call(name=call.name, args=call.text, id=call.id, error=call.error)
        for call in reply.tool_calls
        if call.error is not None
    ]
    reasoning = {} if reply.reasoning is None else {"reasoning_content": reply.reasoning}
    return {
        "content": reply.text,
        "tool_calls": calls,
        "invalid_tool_calls": invalid,
        "additional_kwargs": reasoning,
    }


def streamed_args(call: ToolCall) -> str:
    """The arguments; of an invalid call nothing that LangChain, which parses them, takes for valid.

    It closes what is cut and drops what comes after, so that only the beginning can say it.
    """
    return call.text if call.error is None else f"{call.error}: {call.text}"


def _fit(reply: Reply[Any]) -> list[ToolCall]:
    return [call for call in reply.tool_calls if call.error is None]


def _content_of(message: BaseMessage) -> str | Prompt:
    """What is said, as text, or with images in it."""
    content = message.content
    if isinstance(content, str):
        return content
    parts: list[str | Image] = []
    for block in content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text":
            parts.append(block["text"])
        elif block.get("type") in ("image", "image_url"):
            parts.append(_image_of(block))
        elif block.get("type") not in ("tool_use", "tool_call", "reasoning", "thinking"):
            raise PromptError(
                f"a {type(message).__name__} has a block of type {block.get('type')!r}: ChatHelium "
                "takes text, images and calls of tools"
            )
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(parts) else Prompt(tuple(parts))


def _image_of(block: dict[str, Any]) -> Image:
    try:
        url = convert_to_openai_image_block(block) if block["type"] == "image" else block
        url = url["image_url"]
        url = url["url"] if isinstance(url, dict) else url
    except (KeyError, ValueError) as error:
        raise PromptError(f"a block of an image is malformed: {error}") from error
    if not (isinstance(url, str) and url.startswith("data:")):  # nor is a file of ours read
        raise PromptError(
            "ChatHelium takes images as base64 or as data: URLs: what another URL leads to may "
            "change, and an image is known by its content"
        )
    return image(url)
