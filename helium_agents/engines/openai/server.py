"""`OpenAIServer`: a model that a server computes, whoever runs it, over the OpenAI API.

Importing this module imports no HTTP client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from helium_agents.engines.engine import (
    AnswersLast,
    ChatMessage,
    Choice,
    Completion,
    OnDelta,
    Request,
)
from helium_agents.engines.openai.api_key import ApiKey
from helium_agents.engines.openai.settings import ServerSettings
from helium_agents.errors import EngineDied, EngineError, EngineStartError, RequestError

if TYPE_CHECKING:
    from helium_agents.engines.openai.about import About, Asking
    from helium_agents.engines.openai.connection import Connection
    from helium_agents.engines.openai.dialect import Dialect
    from helium_agents.engines.openai.identity import ServerIdentity
    from helium_agents.engines.openai.pacing import Pacing
    from helium_agents.engines.openai.rendering import Rendering

_POLL_S = 0.5
_CHARACTERS_PER_TOKEN = 4


@dataclass
class _Live:
    """What there is while the engine is started.

    Args:
        connection: Where requests go.
        pacing: When they may.
        dialect: How they are put.
        about: What the server says of itself.
        loop: The event loop that all this is of.
    """

    connection: Connection
    pacing: Pacing
    dialect: Dialect
    about: About
    loop: asyncio.AbstractEventLoop


class OpenAIServer:
    """A server with the OpenAI API: vLLM's own, a hosted one, or any other.

    vLLM's own takes everything that `VLLM` does; with `tokenizer` prompts are rendered here and go
    as token ids, and answers are those of `VLLM` with the same settings. To another server go
    messages, and `top_k`, `min_p` and `repetition_penalty` are refused, since it may ignore them.

    Args:
        base_url: Of the API, e.g. ``"http://localhost:8000/v1"``.
        model: The model's name there.
        weights: What tells the weights that the server has from all others, e.g. a commit or a
            version: you vouch for it. Without it answers are shared within a session, and not kept
            in a memo.
        api_key: The key, or a `Path` of a file that has it; by default what the environment
            variable `OPENAI_API_KEY` says.
        tokenizer: A directory or the name of a hub repository with the model's tokenizer and chat
            template; of a vLLM server only. Needs ``helium_agents[tokenizer]``.
        max_connections: Most requests that are under way at once.
        requests_per_minute: Most requests a minute; `None` for no limit.
        tokens_per_minute: Most tokens a minute, of prompts and the most of their answers.
        timeout_s: Most seconds for which the server may say nothing on a request; without
            streaming that is until the whole answer.
        restart_s: How long to wait for a server that has been there and is gone.
        name: What to call the model; by default `model`.
        chat_template_kwargs: Given to the chat template, e.g. ``{"enable_thinking": False}``.
        extra_body: What every request's JSON has besides, e.g. ``{"cache_salt": "tenant 7"}``.

    Raises:
        EngineStartError: An argument is of the wrong type or out of range.
    """

    follows_schemas = True
    calls_tools = True  # of which the server tells its model, and whose calls it finds
    takes_hints = True  # a server that knows none is sent none

    # abilities that only one with a tokenizer has
    render: Callable[..., Any]
    truncate: Callable[[Choice, int], Choice | None]

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        weights: str | None = None,
        api_key: str | Path | None = None,
        tokenizer: str | Path | None = None,
        max_connections: int = 128,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        timeout_s: float = 600.0,
        restart_s: float = 300.0,
        name: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings = ServerSettings(
            base_url=base_url,
            model=model,
            weights=weights,
            tokenizer=tokenizer,
            chat_template_kwargs=dict(chat_template_kwargs or {}),
            extra_body=dict(extra_body or {}),
            max_connections=max_connections,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            timeout_s=timeout_s,
            restart_s=restart_s,
        )
        self._key = ApiKey(api_key)
        self._name = name or model
        self._live: _Live | None = None
        self._has_been_there = False
        self._is_lost = False
        self._waits_for = ""
        self._starting = asyncio.Lock()
        if tokenizer is not None:
            self.render = self._render
            self.truncate = self._truncate

    def __repr__(self) -> str:
        return f"OpenAIServer({self._settings.base_url!r}, {self._settings.model!r})"

    # --- what it is ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What a person calls the model."""
        return self._name

    @cached_property
    def _identity(self) -> ServerIdentity:
        from helium_agents.engines.openai.identity import ServerIdentity

        return ServerIdentity(self._settings, self._asking)

    def identity(self) -> str:
        """Hex digest of `identity_parts`.

        With `weights` the server is asked what it is, unless nobody answers: then what it said the
        last time counts, so that what is remembered needs no server.

        Raises:
            EngineStartError: The server refuses the key, has no such model, or is not there and
                never was.
        """
        return self._identity.digest

    def identity_parts(self) -> dict[str, str]:
        """What `identity` is made of, by name: weights, fingerprint, version, tokenizer, ..."""
        return self._identity.parts

    @property
    def answers_last(self) -> AnswersLast:
        """For good with `weights`, else a session; not at all once the server has changed."""
        return self._identity.answers_last

    @property
    def is_started(self) -> bool:
        """Whether `start` has finished and `close` was not called since; a lost one counts."""
        return self._live is not None

    @property
    def state(self) -> str:
        """What it waits for, in words; empty where it does not."""
        states = [self._waits_for, "" if self._live is None else self._live.pacing.state]
        return ", ".join(filter(None, states))

    @cached_property
    def _rendering(self) -> Rendering | None:
        from helium_agents.engines.openai.rendering import Rendering

        settings = self._settings
        if settings.source is None:
            return None
        return Rendering(settings.source, self._name, settings.chat_template_kwargs)

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """See that the server is there, has the model and takes the key.

        One that has been there and is gone is waited for, at most `restart_s`.

        Raises:
            EngineStartError: It is not there, refuses the key, has no such model, or renders
                prompts otherwise than `tokenizer`.
        """
        async with self._starting:
            if self._live is not None and not self._is_lost:
                return
            try:
                about = await self._reach()
                await self._check_rendering(about)
            finally:
                self._waits_for = ""
            self._identity.note(version=about.version)
            self._has_been_there = True
            self._is_lost = False
            if self._live is None:
                self._live = self._connected(about)
            self._live.about = about

    async def close(self) -> None:
        """Close the connections; requests that are open fail. Idempotent."""
        async with self._starting:
            live, self._live = self._live, None
            if live is not None:
                await live.connection.close()

    async def __aenter__(self) -> Self:
        """Start it for a block, in which any number of sessions may use it."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _reach(self) -> About:
        """What the server says of itself, as soon as it does."""
        from helium_agents.engines.openai.about import NotThere

        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._settings.restart_s
        while True:
            try:
                return await asyncio.to_thread(lambda: self._asking().about(has_fingerprint=False))
            except NotThere as error:
                if not (error.is_busy or self._has_been_there) or loop.time() > until_s:
                    raise
                self._waits_for = (
                    f"waits for the server, at most {self._settings.restart_s:g} s: {error}"
                )
                await asyncio.sleep(_POLL_S)

    async def _check_rendering(self, about: About) -> None:
        if self._rendering is None:
            return
        if not about.is_vllm:
            raise EngineStartError(
                f"OpenAIServer(tokenizer=...): the server at {self._settings.base_url} is not "
                "vLLM's, which alone takes token ids and tells them: leave tokenizer= out"
            )
        await asyncio.to_thread(self._rendering.load)
        await self._rendering.check(self._asking().rendered)

    def _asking(self) -> Asking:
        from helium_agents.engines.openai.about import Asking

        settings = self._settings
        return Asking(settings.base_url, settings.model, self._key.read(), self._key.hide)

    def _connected(self, about: About) -> _Live:
        from helium_agents.engines.openai.connection import Connection
        from helium_agents.engines.openai.dialect import Dialect
        from helium_agents.engines.openai.pacing import Pacing

        settings = self._settings
        connection = Connection(
            settings.base_url,
            self._key.read(),
            self._key.hide,
            timeout_s=settings.timeout_s,
            max_connections=settings.max_connections,
        )
        pacing = Pacing(
            settings.max_connections, settings.requests_per_minute, settings.tokens_per_minute
        )
        dialect = Dialect(
            settings.model,
            is_vllm=about.is_vllm,
            template_kwargs=settings.chat_template_kwargs,
            extra_body=settings.extra_body,
        )
        return _Live(connection, pacing, dialect, about, asyncio.get_running_loop())

    def _running(self) -> _Live:
        if self._live is None:
            raise EngineError(f"engine {self.name!r} is not started")
        if asyncio.get_running_loop() is not self._live.loop:
            raise EngineError(f"engine {self.name!r} was started in another event loop")
        return self._live

    # --- requests ------------------------------------------------------------------------------

    async def _render(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]] = ()
    ) -> Sequence[int]:
        """Token ids of the conversation in the model's own template, ready for the answer."""
        self._running()
        assert self._rendering is not None
        return await self._rendering.render(messages, tools)

    def _truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The greedy answer cut to `max_tokens`; `None` where that cannot be done exactly."""
        return None if self._rendering is None else self._rendering.truncate(choice, max_tokens)

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        """Ask the server; cancelling this closes the connection, by which it aborts the request.

        A busy server, one that has an error of its own and one that breaks off are asked again,
        with growing pauses or as the server says; where text was streamed already, the stream
        begins anew by `Request.on_attempt`.

        Raises:
            RequestError: The request is at fault.
            TransientEngineError: It failed several times, or the server said nothing for too long.
            EngineDied: Nobody is there; `start` waits for it.
            EngineError: The server refuses the key, or does not do what is asked.
        """
        live = self._running()
        self._check_length(request, live.about.max_model_tokens)
        hear, num_attempts = on_delta, 0

        async def attempt() -> Completion:
            nonlocal hear, num_attempts
            if num_attempts and hear is not None:
                hear = request.on_attempt()
            num_attempts += 1
            return await self._ask(live, request, hear)

        try:
            return await live.pacing.persist(attempt, _most_tokens(request))
        except EngineDied:
            self._is_lost = True
            raise

    async def _ask(self, live: _Live, request: Request, hear: OnDelta | None) -> Completion:
        """One attempt, put in another way where the server does not take the first."""
        from helium_agents.engines.openai.answer import Gathered

        place = f"the server at {self._settings.base_url}"
        while True:
            is_streamed = hear is not None and not request.tools
            path, body = live.dialect.phrase(request, is_streamed=is_streamed)
            answer, first_token_s = Gathered(request, place), None
            try:
                async with aclosing(live.connection.pages(path, body)) as pages:
                    async for page in pages:
                        for delta in answer.add(page):
                            first_token_s = first_token_s or live.loop.time()
                            if hear is not None:
                                hear(delta)
            except RequestError as error:
                if not live.dialect.learn(str(error)):
                    raise
                continue
            self._identity.note(fingerprint=answer.fingerprint)
            return answer.completion(first_token_s if hear is not None else None)

    def _check_length(self, request: Request, limit: int | None) -> None:
        prompt_tokens, max_tokens = len(request.prompt_token_ids), request.max_tokens
        if limit is not None and prompt_tokens and prompt_tokens + max_tokens > limit:
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}, but "
                f"{self.name!r} holds {limit} of both together: shorten the prompt or lower "
                "max_tokens"
            )


def _most_tokens(request: Request) -> int:
    """The most tokens that a request takes, by its text where its ids are not known."""
    prompt_tokens = len(request.prompt_token_ids)
    if not prompt_tokens:
        num_characters = sum(len(message.content) for message in request.messages)
        prompt_tokens = num_characters // _CHARACTERS_PER_TOKEN
    return prompt_tokens + request.sampling.n * request.max_tokens
