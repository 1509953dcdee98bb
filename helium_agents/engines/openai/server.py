"""`OpenAIServer`: a model that a server computes, whoever runs it, over the OpenAI API.

Importing this module imports no HTTP client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

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
from helium_agents.errors import EngineDied, EngineError, EngineStartError

if TYPE_CHECKING:
    from helium_agents.engines.openai.about import About, Asking
    from helium_agents.engines.openai.identity import ServerIdentity
    from helium_agents.engines.openai.live import LiveServer
    from helium_agents.engines.openai.rendering import Rendering

_POLL_S = 0.5


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
        timeout_s: Most seconds until a request's whole answer; of a stream, until its next piece.
        restart_s: How long to wait for a server that has been there and is gone.
        name: What to call the model; by default `model`.
        chat_template_kwargs: Given to the chat template, e.g. ``{"enable_thinking": False}``.
        extra_body: What every request's JSON has besides, e.g. ``{"cache_salt": "tenant 7"}``.

    Raises:
        EngineStartError: An argument is of the wrong type or out of range.
    """

    follows_schemas = True
    calls_tools = True  # of which the server tells its model, and whose calls it finds
    takes_images = True  # which go to it in the messages
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
            name=name,
            tokenizer=tokenizer,
            chat_template_kwargs={} if chat_template_kwargs is None else chat_template_kwargs,
            extra_body={} if extra_body is None else extra_body,
            max_connections=max_connections,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            timeout_s=timeout_s,
            restart_s=restart_s,
        )
        self._key = ApiKey(api_key)
        self._name = model if name is None else name
        self._live: LiveServer | None = None
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

    @property
    def provider(self) -> str:
        """Whose API it is: "vllm" where that is known, else "openai"."""
        is_vllm = self._settings.source is not None
        if self._live is not None:
            is_vllm = self._live.about.is_vllm
        return "vllm" if is_vllm else "openai"

    @property
    def server(self) -> tuple[str, int]:
        """Host and port of the server."""
        url = urlsplit(self._settings.base_url)
        return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)

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
        return Rendering(settings.source, self._name, settings.chat_template_kwargs, settings.today)

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """See that the server is there, has the model and takes the key.

        One that has been there and is gone is waited for, at most `restart_s`.

        Raises:
            EngineStartError: It is not there, refuses the key, has no such model, or renders
                prompts otherwise than `tokenizer`.
        """
        from helium_agents.engines.openai.live import LiveServer

        async with self._starting:
            if self._live is not None and not self._is_lost:
                return
            about = await self._reach()
            self._identity.note(version=about.version)
            self._has_been_there = True
            self._is_lost = False
            if self._live is None:
                self._live = LiveServer(self._settings, self._key, about, self._identity)
            self._live.about = about

    async def close(self) -> None:
        """Close the connections; requests that are open fail. Idempotent."""
        async with self._starting:
            live, self._live = self._live, None
            if live is not None:
                await live.close()

    async def __aenter__(self) -> Self:
        """Start it for a block, in which any number of sessions may use it."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _reach(self) -> About:
        """What the server says of itself, as soon as it does, and renders as we do."""
        from helium_agents.engines.openai.about import NotThere

        loop, restart_s = asyncio.get_running_loop(), self._settings.restart_s
        until_s = loop.time() + restart_s
        try:
            while True:
                try:
                    return await self._checked()
                except NotThere as error:
                    if not (error.is_busy or self._has_been_there) or loop.time() > until_s:
                        raise EngineStartError(str(error)) from error.__cause__
                    self._waits_for = f"waits for the server, at most {restart_s:g} s: {error}"
                await asyncio.sleep(_POLL_S)
        finally:
            self._waits_for = ""

    async def _checked(self) -> About:
        about = await asyncio.to_thread(lambda: self._asking().about(has_fingerprint=False))
        if self._rendering is None:
            return about
        if not about.is_vllm:
            raise EngineStartError(
                f"OpenAIServer(tokenizer=...): the server at {self._settings.base_url} is not "
                "vLLM's, which alone takes token ids and tells them: leave tokenizer= out"
            )
        await asyncio.to_thread(self._rendering.load)
        await self._rendering.check(self._asking().rendered)
        return about

    def _asking(self) -> Asking:
        from helium_agents.engines.openai.about import Asking

        settings = self._settings
        return Asking(settings.base_url, settings.model, self._key.read(), self._key.hide)

    def _running(self) -> LiveServer:
        if self._live is None:
            raise EngineError(f"engine {self.name!r} is not started")
        if asyncio.get_running_loop() is not self._live.loop:
            raise EngineError(
                f"engine {self.name!r} was started in another event loop: close it there first, "
                "or give each event loop an engine of its own"
            )
        return self._live

    # --- requests ------------------------------------------------------------------------------

    async def _render(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]] = ()
    ) -> Sequence[int]:
        """Token ids of the conversation in the model's own template, ready for the answer.

        None of one with images or of a call with tools, which the server renders: it writes tools
        down in its own way.
        """
        self._running()
        assert self._rendering is not None
        if tools or any(message.images for message in messages):
            return ()
        return await self._rendering.render(messages)

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
        try:
            return await live.complete(request, on_delta)
        except EngineDied:
            self._is_lost = True
            raise
