"""The HTTP connection to a server: sends a request, and gives the pages of its answer.

Whatever goes wrong is raised in the port's terms. Cancelling closes the connection, by which a
server knows that the answer is not wanted any more.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import cache
from typing import Any

import httpx
from httpx_sse import EventSource
from pydantic import ValidationError

from helium_agents.engines.openai.failures import TryAgain, failure_of
from helium_agents.engines.openai.page import Page
from helium_agents.errors import EngineDied, EngineError, TransientEngineError

_CONNECT_S = 10.0

_KEEPALIVE_S = 4.0
"""Uvicorn, which vLLM has, closes a connection that was idle for five."""

_STREAM, _END = "text/event-stream", "[DONE]"

_SHOWN_CHARACTERS = 200


class Connection:
    """Connections to one server, in one event loop.

    Args:
        base_url: Of the API, e.g. ``http://localhost:8000/v1``.
        key: The API key; empty for none.
        hide: Takes the key out of a text.
        timeout_s: Most seconds until a page: a whole answer, or a piece of a stream.
        max_connections: How many there may be.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        hide: Callable[[str], str],
        *,
        timeout_s: float,
        max_connections: int,
    ) -> None:
        self._base_url = base_url
        self._place = f"the server at {base_url}"
        self._hide = hide
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers=headers_of(key),
            verify=certificates(),
            timeout=httpx.Timeout(None, connect=_CONNECT_S),  # `pages` sees to the rest
            limits=httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=_KEEPALIVE_S,
            ),
        )

    async def close(self) -> None:
        """Close all connections; requests that are open fail."""
        await self._client.aclose()

    async def pages(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Page, None]:
        """What the server answers: one page, or those of a stream as they come.

        The time until the next one is bounded here, since any byte that trickles in, a comment of a
        stream too, would set back a timeout of the HTTP client's.

        Raises:
            EngineDied: Nobody is there.
            TryAgain: It may work when tried again.
            TransientEngineError: No page came in time.
            EngineError: It was refused; a `RequestError` where the request is at fault.
        """
        async with aclosing(self._pages(path, body, headers)) as pages:
            while True:
                try:
                    async with asyncio.timeout(self._timeout_s):
                        page = await anext(pages, None)
                except TimeoutError:
                    raise TransientEngineError(
                        f"{self._place} gave no answer for {self._timeout_s:g} s (timeout_s=)"
                    ) from None
                if page is None:
                    return
                yield page

    async def _pages(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str] | None
    ) -> AsyncGenerator[Page, None]:
        content = json.dumps(body, separators=(",", ":")).encode()
        try:
            async with self._client.stream(
                "POST", path, content=content, headers=headers
            ) as response:
                if not response.is_success:
                    raise failure_of(
                        response.status_code,
                        _text(await response.aread()),
                        self._place,
                        self._hide,
                        headers=response.headers,
                    )
                if _STREAM not in response.headers.get("content-type", ""):  # even if one was asked
                    page = self._page(data := await response.aread())
                    if not page.choices:
                        raise self._no_answer(data)
                    yield page
                    return
                has_ended = False
                async for event in EventSource(response).aiter_sse():
                    # after its end read on, or the connection could not be used again
                    has_ended = has_ended or event.data == _END
                    if event.data and not has_ended:
                        yield self._page(event.data)
        except httpx.RequestError as error:
            raise self._failure(error) from error

    def _page(self, data: str | bytes) -> Page:
        try:
            page = Page.model_validate_json(data)
        except ValidationError:
            raise self._no_answer(data) from None
        if page.error_status is not None:
            raise failure_of(page.error_status, _text(data), self._place, self._hide, headers={})
        page.hide(self._hide)
        return page

    def _no_answer(self, data: str | bytes) -> TryAgain:
        return TryAgain(
            f"{self._place} answered what is no answer of the OpenAI API: "
            f"{self._hide(_text(data))[:_SHOWN_CHARACTERS]!r}"
        )

    def _failure(self, error: httpx.RequestError) -> EngineError:
        said = self._hide(str(error)) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            # Nobody can tell why it is gone: it may be restarted by whoever runs it.
            return EngineDied(f"nobody answers at {self._base_url}: {said}", was_killed=True)
        return TryAgain(f"the connection to {self._place} broke off: {said}")


def _text(data: str | bytes) -> str:
    return data if isinstance(data, str) else data.decode("utf-8", "replace")


def certificates() -> ssl.SSLContext:
    """Those that the machine trusts; of all connections the same, since reading them takes 20 ms.

    Raises:
        OSError: They cannot be read.
    """
    return _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _certificates(file: str | None, directory: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context()  # which asks the same variables


def headers_of(key: str) -> dict[str, str]:
    """What every request says besides its body."""
    headers = {"content-type": "application/json"}
    return headers | {"authorization": f"Bearer {key}"} if key else headers
