"""A server that is there: how its requests are put, sent, tried again and read."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from helium_agents.engines.engine import Completion, OnDelta, Request
from helium_agents.engines.openai.about import About
from helium_agents.engines.openai.answer import Gathered
from helium_agents.engines.openai.api_key import ApiKey
from helium_agents.engines.openai.connection import Connection
from helium_agents.engines.openai.dialect import Dialect
from helium_agents.engines.openai.identity import ServerIdentity
from helium_agents.engines.openai.pacing import Pacing
from helium_agents.engines.openai.settings import ServerSettings
from helium_agents.errors import RequestError

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_IMAGE = 1000


class LiveServer:
    """What there is of a server in one event loop.

    Args:
        settings: Of the engine.
        key: The API key.
        about: What the server says of itself.
        identity: Is told of the fingerprints of answers.

    Attributes:
        about: As given; another one after a restart.
        loop: The event loop.
        pacing: When requests may be sent.
    """

    def __init__(
        self, settings: ServerSettings, key: ApiKey, about: About, identity: ServerIdentity
    ) -> None:
        self.about = about
        self.loop = asyncio.get_running_loop()
        self.pacing = Pacing(
            settings.max_connections, settings.requests_per_minute, settings.tokens_per_minute
        )
        self._identity = identity
        self._model = settings.model
        self._place = f"the server at {settings.base_url}"
        self._dialect = Dialect(
            settings.model,
            is_vllm=about.is_vllm,
            template_kwargs=settings.chat_template_kwargs,
            extra_body=settings.extra_body,
        )
        self._connection = Connection(
            settings.base_url,
            key.read(),
            key.hide,
            timeout_s=settings.timeout_s,
            max_connections=settings.max_connections,
        )

    async def close(self) -> None:
        """Close the connections; requests that are open fail."""
        await self._connection.close()

    async def complete(self, request: Request, on_delta: OnDelta | None) -> Completion:
        """Ask, as often as it may help; see `OpenAIServer.complete`."""
        self._check_length(request)
        hear, num_attempts = on_delta, 0

        async def attempt() -> Completion:
            nonlocal hear, num_attempts
            if num_attempts and hear is not None:
                hear = request.on_attempt()
            num_attempts += 1
            return await self._ask(request, hear)

        return await self.pacing.persist(attempt, _most_tokens(request))

    async def _ask(self, request: Request, hear: OnDelta | None) -> Completion:
        """One attempt, put in another way where the server does not take the first."""
        while True:
            is_streamed = hear is not None and request.tool_choice in ("auto", "none")
            path, body = self._dialect.phrase(request, is_streamed=is_streamed)
            answer, first_token_s = Gathered(request, self._place), None
            try:
                async with aclosing(self._connection.pages(path, body, request.headers)) as pages:
                    async for page in pages:
                        for delta in answer.add(page):
                            first_token_s = first_token_s or self.loop.time()
                            if hear is not None:
                                hear(delta)
            except RequestError as error:
                if not self._dialect.learn(str(error)):
                    raise
                continue
            self._identity.note(fingerprint=answer.fingerprint)
            return answer.completion(first_token_s if hear is not None else None)

    def _check_length(self, request: Request) -> None:
        limit = self.about.max_model_tokens
        prompt_tokens, max_tokens = len(request.prompt_token_ids), request.max_tokens
        if limit is not None and prompt_tokens and prompt_tokens + max_tokens > limit:
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}, but "
                f"{self._model!r} holds {limit} of both together: shorten the prompt or lower "
                "max_tokens"
            )


def _most_tokens(request: Request) -> int:
    """The most tokens that a request takes, by its text where its ids are not known."""
    prompt_tokens = len(request.prompt_token_ids)
    if not prompt_tokens:
        num_characters = sum(len(message.content) for message in request.messages)
        num_images = sum(len(message.images) for message in request.messages)
        prompt_tokens = num_characters // _CHARACTERS_PER_TOKEN + num_images * _TOKENS_PER_IMAGE
    return prompt_tokens + request.sampling.n * request.max_tokens
