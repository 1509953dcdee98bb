"""A conversation as token ids in a model's own chat template."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

from pydantic_core import from_json

from helium_agents.engines.encode import Encoder
from helium_agents.engines.engine import ChatMessage
from helium_agents.errors import RequestError
from helium_agents.graph.image import pieces

DATE_WORDS = ("strftime_now", "date_string")
"""What a template that shows the date mentions."""

_OF_ENCODING = frozenset({"tokenizer_kwargs", "truncation", "padding", "max_length"})
"""Arguments that say how a text is encoded, and are not the template's."""

_INLINE_CHARACTERS = 20_000
"""Shorter conversations are rendered in the event loop; a thread costs more than it saves."""


async def render(
    tokenizer: Any,
    messages: Sequence[ChatMessage],
    tools: Sequence[dict[str, Any]] = (),
    *,
    encoder: Encoder | None,
    name: str,
    today: date,
    template_kwargs: Mapping[str, Any],
) -> Sequence[int]:
    """Token ids of the conversation, ready for the answer.

    Args:
        tokenizer: One of transformers.
        messages: The conversation.
        tools: What the model is told that it may call, as in `Request.tools`.
        encoder: That of the tokenizer, where it has one.
        name: What a person calls the model.
        today: What a template that shows the date is to show.
        template_kwargs: Given to the template.

    Raises:
        RequestError: The template refuses the conversation.
    """
    conversation = [_for_template(message) for message in messages]
    given = {"tools": list(tools) or None, **arguments(today, template_kwargs)}

    def apply_template() -> Sequence[int]:
        if encoder is None or not _OF_ENCODING.isdisjoint(given):
            token_ids: Sequence[int] = tokenizer.apply_chat_template(
                conversation, return_dict=False, **given
            )
            return token_ids
        text: str = tokenizer.apply_chat_template(conversation, tokenize=False, **given)
        return encoder.encode(text)

    try:
        if sum(len(message.content) for message in messages) < _INLINE_CHARACTERS:
            return apply_template()
        return await asyncio.to_thread(apply_template)
    except Exception as error:  # a template raises what its author wrote
        raise RequestError(
            f"the chat template of {name!r} refuses this conversation: {error}"
        ) from error


def arguments(today: date, template_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a chat template is given besides the conversation; see `render`."""
    midnight = datetime.combine(today, time())
    given = {"add_generation_prompt": True, "strftime_now": midnight.strftime}
    return given | dict(template_kwargs)


def as_chat(message: ChatMessage) -> dict[str, Any]:
    """A message as OpenAI's interface has it."""
    chat: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        chat["content"] = [
            {"type": "text", "text": piece}
            if isinstance(piece, str)
            else {"type": "image_url", "image_url": {"url": piece.data_url}}
            for piece in pieces(message.content, message.images)
        ]
    if message.tool_calls:
        chat["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.text},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        chat["tool_call_id"] = message.tool_call_id
    return chat


def _for_template(message: ChatMessage) -> dict[str, Any]:
    """A message as chat templates expect it: with the values that the JSON of arguments says."""
    chat = as_chat(message)
    for call in chat.get("tool_calls", ()):
        call["function"]["arguments"] = _value(call["function"]["arguments"])
    if message.reasoning is not None:
        chat["reasoning_content"] = message.reasoning
    if message.tool_name is not None:
        chat["name"] = message.tool_name
    return chat


def _value(text: str) -> Any:
    """What JSON text says; what is no JSON stays as it is."""
    try:
        return from_json(text)
    except ValueError:
        return text
