"""What a server says of itself, asked once at the start: which it is, and what it serves.

It is asked synchronously, in a thread: a model's identity is wanted where no event loop runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from helium_agents.engines.openai.connection import certificates, headers_of
from helium_agents.engines.openai.failures import failure_of
from helium_agents.errors import EngineError, EngineStartError, TransientEngineError

_TIMEOUT_S = 30.0
_SHOWN_MODELS = 10


class _Model(BaseModel):
    id: str
    owned_by: str | None = None
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model]


class About(BaseModel):
    """What a server says of itself.

    Args:
        is_vllm: Whether it is vLLM's own server.
        version: Of vLLM, if it is told.
        max_model_tokens: Most tokens of a prompt and its answer, if it says so.
        fingerprint: By which it tells its configuration, if it was asked and has one.
    """

    model_config = ConfigDict(frozen=True)

    is_vllm: bool = Field(False, exclude=True)
    version: str | None = None
    max_model_tokens: int | None = Field(None, exclude=True)
    fingerprint: str | None = None


class NotThere(EngineStartError):
    """No server answers, or not yet.

    Args:
        message: What happened.
        is_busy: Whether there is one, which will answer later.
    """

    def __init__(self, message: str, *, is_busy: bool = False) -> None:
        super().__init__(message)
        self.is_busy = is_busy


class _DoesNotTell(EngineStartError):
    """The server does not have, or take, what not every server does."""


class Asking:
    """Asks one server about itself.

    Args:
        base_url: Of the API.
        model: The model that is to be there.
        key: The API key; empty for none.
        hide: Takes the key out of a text.
    """

    def __init__(self, base_url: str, model: str, key: str, hide: Callable[[str], str]) -> None:
        self._base_url = base_url
        self._root = base_url.removesuffix("/v1")
        self._model = model
        self._key = key
        self._hide = hide

    def about(self, *, has_fingerprint: bool) -> About:
        """What it says of itself.

        Args:
            has_fingerprint: Whether to ask for its fingerprint, which takes a request for a token.

        Raises:
            NotThere: No server answers, or not yet.
            EngineStartError: It refuses the key, or has no such model.
        """
        with self._client() as client:
            model = self._served(client)
            is_vllm = model is not None and model.owned_by == "vllm"
            version = self._version(client) if is_vllm else None
            fingerprint = self._fingerprint(client, is_vllm) if has_fingerprint else None
        return About(  # of which the identity is made, that is kept and shown
            is_vllm=is_vllm,
            version=version and self._hide(version),
            max_model_tokens=None if model is None else model.max_model_len,
            fingerprint=fingerprint and self._hide(fingerprint),
        )

    def rendered(self, messages: list[dict[str, str]], template_kwargs: Any) -> list[int] | None:
        """How the server renders a conversation; `None` if it does not tell."""
        body = {"model": self._model, "messages": messages, "chat_template_kwargs": template_kwargs}
        with self._client() as client:
            try:
                found = self._post(client, f"{self._root}/tokenize", body)
            except _DoesNotTell:  # a proxy lets only /v1 through, or it has no chat template
                return None
        ids = found.get("tokens")
        return ids if isinstance(ids, list) else None

    def _client(self) -> httpx.Client:
        try:
            return httpx.Client(
                base_url=self._base_url,
                headers=headers_of(self._key),
                verify=certificates(),
                timeout=_TIMEOUT_S,
            )
        except OSError as error:
            raise EngineStartError(
                f"the certificates cannot be read that SSL_CERT_FILE or SSL_CERT_DIR names: {error}"
            ) from error
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise EngineStartError(
                f"no connection to {self._base_url!r} can be made ({error}): correct base_url or, "
                "if one is set, the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names"
            ) from error

    def _served(self, client: httpx.Client) -> _Model | None:
        """The model as the server lists it; `None` where it lists none at all."""
        try:
            models = _Models.model_validate(self._get(client, f"{self._base_url}/models")).data
        except (_DoesNotTell, ValidationError):
            return None
        for model in models:
            if model.id == self._model:
                return model
        names = [model.id for model in models]
        close = get_close_matches(self._model, names, n=3)
        shown = self._hide(", ".join(map(repr, close or names[:_SHOWN_MODELS])))
        more = f" and {len(names) - _SHOWN_MODELS} more" if len(names) > _SHOWN_MODELS else ""
        raise EngineStartError(
            f"the server at {self._base_url} has no model {self._model!r}: "
            + (f"did you mean {shown}?" if close else f"it has {shown or 'none'}{more}")
        )

    def _version(self, client: httpx.Client) -> str | None:
        try:
            version = self._get(client, f"{self._root}/version").get("version")
        except _DoesNotTell:
            return None
        return version if isinstance(version, str) else None

    def _fingerprint(self, client: httpx.Client, is_vllm: bool) -> str | None:
        try:
            fingerprint = self._one_token(client, is_vllm).get("system_fingerprint")
        except _DoesNotTell as error:  # a request of any program would fail the same
            raise EngineStartError(str(error)) from None
        return fingerprint if isinstance(fingerprint, str) else None

    def _one_token(self, client: httpx.Client, is_vllm: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model, "max_tokens": 1}
        if is_vllm:  # which may have a model that is none for chats
            return self._post(client, f"{self._base_url}/completions", body | {"prompt": "."})
        body["messages"] = [{"role": "user", "content": "."}]
        try:
            return self._post(client, f"{self._base_url}/chat/completions", body)
        except EngineError as error:
            if "max_completion_tokens" not in str(error):
                raise
            body["max_completion_tokens"] = body.pop("max_tokens")
            return self._post(client, f"{self._base_url}/chat/completions", body)

    def _get(self, client: httpx.Client, url: str) -> dict[str, Any]:
        return self._asked(client, "GET", url)

    def _post(self, client: httpx.Client, url: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._asked(client, "POST", url, body)

    def _asked(
        self, client: httpx.Client, method: str, url: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        place = f"the server at {self._base_url}"
        try:
            with client.stream(method, url, json=body) as response:
                text = _text(response)
        except httpx.RequestError as error:
            said = (self._hide(str(error)) or type(error).__name__).rstrip(".")
            if "CERTIFICATE_VERIFY_FAILED" in said:
                raise EngineStartError(
                    f"the certificate of {self._base_url} is not trusted ({said}): name a file "
                    "that has it, or its authority's, by the environment variable SSL_CERT_FILE"
                ) from error
            raise NotThere(
                f"nobody answers at {self._base_url}: {said}. Start the server, or correct base_url"
            ) from error
        if not response.is_success:
            failure = failure_of(
                response.status_code, text, place, self._hide, headers=response.headers
            )
            if isinstance(failure, TransientEngineError):
                raise NotThere(str(failure), is_busy=True)
            if response.status_code in (400, 404, 405, 501):
                raise _DoesNotTell(str(failure))
            raise EngineStartError(str(failure))
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise EngineStartError(
                f"{place} answers, but not as the OpenAI API does: does base_url end in /v1?"
            )
        return found


def _text(response: httpx.Response) -> str:
    """All that it says, if it is done in time: the client's timeout bounds each read alone."""
    until_s, parts = time.monotonic() + _TIMEOUT_S, []
    for part in response.iter_text():
        parts.append(part)
        if time.monotonic() > until_s:
            raise httpx.ReadTimeout(f"its answer has not ended after {_TIMEOUT_S:g} s")
    return "".join(parts)
