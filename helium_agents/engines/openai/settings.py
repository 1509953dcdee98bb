"""The arguments of `OpenAIServer`, checked, and which of them decide an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from helium_agents.engines.chat_template import DATE_WORDS
from helium_agents.engines.engine import Sampling
from helium_agents.engines.model_source import ModelSource, directory_parts, find_model
from helium_agents.errors import EngineStartError

_HARMLESS = frozenset({"cache_salt", "priority", "request_id", "session_id", "user"})
"""Of a request's body: what decides when an answer comes, not which."""

_OURS = frozenset(
    {
        *("model", "messages", "prompt", "tools", "tool_choice", "response_format"),
        *("stream", "stream_options", "return_token_ids", "max_completion_tokens"),
        *(field.name for field in fields(Sampling) if field.init),
    }
)
"""Of a request's body: what calls say."""


@dataclass(frozen=True)
class ServerSettings:
    """The arguments of `OpenAIServer`, which says what they mean.

    Args:
        today: What a chat template is shown that shows the date, for as long as the engine lives.
    """

    base_url: str
    model: str
    weights: str | None
    name: str | None
    tokenizer: str | Path | None
    chat_template_kwargs: Mapping[str, Any]
    extra_body: Mapping[str, Any]
    max_connections: int
    requests_per_minute: int | None
    tokens_per_minute: int | None
    timeout_s: float
    restart_s: float
    today: date = field(default_factory=date.today)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", _checked_url(self.base_url))
        for name in ("model", "weights", "name"):
            text = getattr(self, name)
            if not (isinstance(text, str) and text) and not (name != "model" and text is None):
                raise EngineStartError(f"OpenAIServer({name}={text!r}): give a name")
        for name in ("max_connections", "requests_per_minute", "tokens_per_minute"):
            number = getattr(self, name)
            is_none = number is None and name != "max_connections"
            if not is_none and (type(number) is not int or number < 1):
                raise EngineStartError(
                    f"OpenAIServer({name}={number!r}): give a whole number, at least 1"
                )
        for name in ("timeout_s", "restart_s"):
            seconds = getattr(self, name)
            if type(seconds) not in (int, float) or not 0 < seconds < float("inf"):
                raise EngineStartError(
                    f"OpenAIServer({name}={seconds!r}): give a number of seconds above 0"
                )
        for name in ("chat_template_kwargs", "extra_body"):
            object.__setattr__(self, name, _checked_mapping(name, getattr(self, name)))
        taken = sorted(_OURS & set(self.extra_body))
        if taken:
            raise EngineStartError(
                f"OpenAIServer(extra_body=...) has {taken[0]!r}, which is said by the call: leave "
                "it out, and give it to llm(...)"
            )

    @cached_property
    def source(self) -> ModelSource | None:
        """Where the tokenizer's files are; `None` without one.

        Raises:
            EngineStartError: They cannot be found.
        """
        return None if self.tokenizer is None else find_model(self.tokenizer)

    def deciding(self) -> dict[str, str]:
        """What of all this decides an answer, by what a person calls it."""
        parts = {"model": self.model, "prompts": "rendered by the server"}
        if self.source is not None:
            parts |= {"prompts": "rendered here"} | _tokenizer_parts(self.source)
            if self.source.chat_template_has(*DATE_WORDS):
                parts["date"] = self.today.isoformat()
        if self.chat_template_kwargs:
            arguments = json.dumps(dict(self.chat_template_kwargs), sort_keys=True)
            parts["chat_template_kwargs"] = arguments
        body = {name: value for name, value in self.extra_body.items() if name not in _HARMLESS}
        if body:
            parts["extra_body"] = json.dumps(body, sort_keys=True)
        return parts


def _tokenizer_parts(source: ModelSource) -> dict[str, str]:
    if source.revision is not None or source.directory is None:
        return {"tokenizer": source.parts()["model"]}
    return directory_parts(source.directory, "tokenizer", "chat template")


def _checked_mapping(name: str, given: Any) -> dict[str, Any]:
    """A copy of what is to be said in JSON, by name."""
    if not isinstance(given, Mapping):
        raise EngineStartError(f"OpenAIServer({name}=...) is a {type(given).__name__}: give a dict")
    try:
        json.dumps(copy := dict(given), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise EngineStartError(
            f"OpenAIServer({name}=...): give a dict that JSON can say: {error}"
        ) from None
    return copy


def _checked_url(url: Any) -> str:
    """A base URL without its last slash; one that has no path means the API's usual one."""
    example = 'one like "http://localhost:8000/v1"'
    if not isinstance(url, str):
        raise EngineStartError(f"OpenAIServer(base_url={url!r}): give {example}")
    try:
        parts = urlsplit(url.strip())
        is_complete = parts.scheme in ("http", "https") and bool(parts.hostname)
        (parts.hostname or "").encode("idna")  # as whoever looks it up does
        has_secret = bool(parts.username or parts.password or parts.query or parts.fragment)
        _ = parts.port
    except ValueError as error:
        raise EngineStartError(
            f"OpenAIServer(base_url=...) is no URL ({error}): give {example}"
        ) from None
    if has_secret:
        raise EngineStartError(
            "OpenAIServer(base_url=...) has a name, a password or a query in it, which would show "
            f"in logs: give {example}, and the key as api_key= or OPENAI_API_KEY"
        )
    if not is_complete:
        raise EngineStartError(f"OpenAIServer(base_url={url!r}) is no URL: give {example}")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"
