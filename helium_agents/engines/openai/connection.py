"""The HTTP connection to a server: sends a request, and gives the pages of its answer.

Whatever goes wrong is raised in the port's terms. Cancelling closes the connection, by which a
server knows that the answer is not wanted any more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import httpx
from httpx_sse import EventSource
from pydantic import ValidationError

from helium_agents.engines.openai.answer import Page
from helium_agents.engines.openai.failures import TryAgain, failure_of
from helium_agents.errors import EngineDied, EngineError, TransientEngineError

_CONNECT_S = 10.0

_KEEPALIVE_S = 4.0
"""Uvicorn, which vLLM has, closes a connection that was idle for five."""

_END = "[DONE]"

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
                if response.status_code != 200:
                    text = (await response.aread()).decode("utf-8", "replace")
                    raise failure_of(
                        response.status_code,
                        text,
                        self._place,
                        self._hide,
                        retry_after=response.headers.get("retry-after"),
                    )
                if not body.get("stream"):
                    yield self._page(await response.aread())
                    return
                is_whole = False
                async for event in EventSource(response).aiter_sse():
                    if event.data == _END:
                        is_whole = True  # read on, or the connection could not be used again
                    elif not is_whole:
                        yield self._page(event.data)
                if not is_whole:
                    raise TryAgain(f"{self._place} broke off in the middle of a stream")
        except httpx.RequestError as error:
            raise self._failure(error) from error

    def _page(self, data: str | bytes) -> Page:
        try:
            page = Page.model_validate_json(data)
            if page.error is None:
                page.hide(self._hide)
                return page
        except ValidationError:
            text = data if isinstance(data, str) else data.decode("utf-8", "replace")
            raise TryAgain(
                f"{self._place} answered what is no answer of the OpenAI API: "
                f"{self._hide(text)[:_SHOWN_CHARACTERS]!r}"
            ) from None
        code = page.error.get("code")
        text = json.dumps({"error": page.error})
        status = code if isinstance(code, int) else 500
        raise failure_of(status, text, self._place, self._hide)

    def _failure(self, error: httpx.RequestError) -> EngineError:
        said = self._hide(str(error)) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            # Nobody can tell why it is gone: it may be restarted by whoever runs it.
            return EngineDied(f"nobody answers at {self._base_url}: {said}", was_killed=True)
        return TryAgain(f"the connection to {self._place} broke off: {said}")


def headers_of(key: str) -> dict[str, str]:
    """What every request says besides its body."""
    headers = {"content-type": "application/json"}
    return headers | {"authorization": f"Bearer {key}"} if key else headers
