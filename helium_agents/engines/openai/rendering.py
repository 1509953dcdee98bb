"""Renders prompts on this side, and makes sure that the server does it the same way.

Token ids that were rendered here are what the server computes, whatever its own chat template; a
tokenizer of another model would give it nonsense without anybody noticing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from helium_agents.engines import chat_template
from helium_agents.engines.detokenize import Truncator, truncator_of
from helium_agents.engines.encode import Encoder, encoder_of
from helium_agents.engines.engine import ChatMessage, Choice
from helium_agents.engines.model_source import ModelSource
from helium_agents.errors import EngineStartError, RequestError

_SAMPLES = (
    (ChatMessage("system", "Be brief."), ChatMessage("user", "Où est le café? 3+7=10")),
    (ChatMessage("user", "Hello, world!\n\n  def f(x):"),),
)
"""Conversations that are rendered on both sides; not every template takes a system message."""


class Rendering:
    """A model's tokenizer and chat template.

    Args:
        source: Where they are.
        name: What a person calls the model.
        template_kwargs: Given to the template.
        today: What a template that shows the date is to show.
    """

    def __init__(
        self, source: ModelSource, name: str, template_kwargs: Mapping[str, Any], today: date
    ) -> None:
        self._source = source
        self._name = name
        self._template_kwargs = template_kwargs
        self._today = today
        self._tokenizer: Any = None
        self._encoder: Encoder | None = None
        self._truncator: Truncator | None = None

    def load(self) -> None:
        """Load it, in a thread: it takes seconds. Idempotent.

        Raises:
            EngineStartError: It cannot be loaded, or has no chat template.
        """
        if self._tokenizer is not None:
            return
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise EngineStartError(
                "OpenAIServer(tokenizer=...) needs transformers: "
                "pip install 'helium_agents[tokenizer]', or leave tokenizer= out"
            ) from error
        source = self._source
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.model, revision=source.revision)
        except Exception as error:  # of whatever reads its files
            raise EngineStartError(
                f"the tokenizer {source.model!r} cannot be loaded: {error}"
            ) from error
        if not tokenizer.chat_template:
            raise EngineStartError(f"the tokenizer {source.model!r} has no chat template")
        self._encoder = encoder_of(tokenizer)
        self._tokenizer = tokenizer

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        """Token ids of the conversation, ready for the answer.

        Raises:
            RequestError: The template refuses the conversation.
        """
        return await chat_template.render(
            self._tokenizer,
            messages,
            encoder=self._encoder,
            name=self._name,
            today=self._today,
            template_kwargs=self._template_kwargs,
        )

    async def check(self, rendered_there: Callable[..., list[int] | None]) -> None:
        """See that the server renders as we do, where it tells.

        Args:
            rendered_there: Asks it.

        Raises:
            EngineStartError: It does not.
        """
        for sample in _SAMPLES:
            try:
                ours = list(await self.render(sample))
            except RequestError:
                continue
            messages = [chat_template.as_chat(message) for message in sample]
            theirs = await asyncio.to_thread(rendered_there, messages, self._template_kwargs)
            if theirs is not None and theirs != ours:
                raise EngineStartError(
                    f"the tokenizer {self._source.model!r} renders a conversation otherwise than "
                    f"the server of {self._name!r}: {len(ours)} tokens here, {len(theirs)} there. "
                    "Give the tokenizer and the chat template that the server has, or leave "
                    "tokenizer= out to let it render"
                )

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The greedy answer cut to `max_tokens`; `None` where that cannot be done exactly."""
        if choice.token_ids and len(choice.token_ids) <= max_tokens:
            return choice
        if self._truncator is None:
            self._truncator = truncator_of(self._source)
        return None if self._truncator is None else self._truncator.truncate(choice, max_tokens)
