"""Conversations with a model that sees images, rendered by vLLM itself, as its own server does it.

Where an image stands in a prompt, how many tokens it has, and how it becomes numbers differs from
model to model, and vLLM knows it. Such a model's conversations without images are rendered in the
same way: many of their templates take messages as lists of parts only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from helium_agents.engines import chat_template
from helium_agents.engines.engine import ChatMessage
from helium_agents.errors import RequestError

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


def sees_images(llm: AsyncLLM) -> bool:
    """Whether an engine's model takes images at all."""
    processor = llm.renderer.mm_processor
    return processor is not None and bool(processor.info.allowed_mm_limits.get("image"))


async def render(
    llm: AsyncLLM,
    messages: Sequence[ChatMessage],
    tools: Sequence[dict[str, Any]] = (),
    *,
    name: str,
    today: date,
    template_kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """A conversation as `AsyncLLM.generate` takes it, with all its token ids.

    Args:
        llm: The engine.
        messages: The conversation.
        tools: What the model is told that it may call, as in `Request.tools`.
        name: What a person calls the model.
        today: What a template that shows the date is to show.
        template_kwargs: Given to the template.

    Raises:
        RequestError: vLLM refuses it: the template does, there are too many images, or one of
            them is broken.
    """
    from vllm.renderers.params import ChatParams

    params = ChatParams(
        chat_template_kwargs=chat_template.arguments(today, template_kwargs)
        | ({"tools": list(tools)} if tools else {})
    )
    conversation = [chat_template.as_chat(message) for message in messages]
    try:
        _, prompts = await llm.renderer.render_chat_async([conversation], params)
    except Exception as error:  # of the template, of Pillow, of the model's own processor
        raise RequestError(f"{name!r} refuses this conversation: {error}") from error
    prompt: dict[str, Any] = prompts[0]
    return prompt
