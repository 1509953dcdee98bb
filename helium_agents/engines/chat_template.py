"""A conversation as token ids in a model's own chat template."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

from helium_agents.engines.engine import ChatMessage
from helium_agents.errors import RequestError

DATE_WORDS = ("strftime_now", "date_string")
"""What a template that shows the date mentions."""

_INLINE_CHARACTERS = 20_000
"""Shorter conversations are rendered in the event loop; a thread costs more than it saves."""


async def render(
    tokenizer: Any,
    messages: Sequence[ChatMessage],
    *,
    name: str,
    today: date,
    template_kwargs: Mapping[str, Any],
) -> Sequence[int]:
    """Token ids of the conversation, ready for the answer.

    Args:
        tokenizer: One of transformers.
        messages: The conversation.
        name: What a person calls the model.
        today: What a template that shows the date is to show.
        template_kwargs: Given to the template.

    Raises:
        RequestError: The template refuses the conversation.
    """
    conversation = [message._asdict() for message in messages]
    midnight = datetime.combine(today, time())

    def apply_template() -> Sequence[int]:
        token_ids: Sequence[int] = tokenizer.apply_chat_template(
            conversation,
            add_generation_prompt=True,
            return_dict=False,
            **{"strftime_now": midnight.strftime} | dict(template_kwargs),
        )
        return token_ids

    try:
        if sum(len(message.content) for message in messages) < _INLINE_CHARACTERS:
            return apply_template()
        return await asyncio.to_thread(apply_template)
    except Exception as error:  # a template raises what its author wrote
        raise RequestError(
            f"the chat template of {name!r} refuses this conversation: {error}"
        ) from error
