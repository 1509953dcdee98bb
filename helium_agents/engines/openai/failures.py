"""What a server's refusal means in the port's terms: whose fault it is, whether it may pass."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from helium_agents.errors import EngineError, RequestError, TransientEngineError

MOST_PAUSE_S = 300.0
"""A server that asks for a longer pause is asked again after this one."""

_MANY_ATTEMPTS, _FEW_ATTEMPTS = 8, 4
"""Where a server is busy, which takes a minute to pass, and where it has an error of its own."""

_SHOWN_CHARACTERS = 500


class TryAgain(TransientEngineError):
    """An attempt that failed for a reason that may pass.

    Args:
        message: What happened.
        after_s: Seconds that the server asks everybody to wait, if it says so.
        most_attempts: How many attempts there may be in all.
    """

    def __init__(
        self, message: str, *, after_s: float | None = None, most_attempts: int = _FEW_ATTEMPTS
    ) -> None:
        super().__init__(message)
        self.after_s = after_s
        self.most_attempts = most_attempts


def failure_of(
    status: int,
    body: str,
    place: str,
    hide: Callable[[str], str],
    *,
    headers: Mapping[str, str],
) -> EngineError:
    """The error for an answer that is none.

    Args:
        status: The HTTP status, or the code of an error inside a stream.
        body: What the server said.
        place: The server, for people.
        hide: Takes the key out of a text, which a server may repeat.
        headers: What it said before that; of an error inside a stream nothing.
    """
    code, said = _said(body)
    said = hide(said)[:_SHOWN_CHARACTERS]
    answered = f"{place} answered {status}{f': {said}' if said else ''}"
    if status in (401, 403):
        return EngineError(
            f"{answered}. Does OPENAI_API_KEY, or api_key=, have a key that is valid there?"
        )
    if status == 404:
        return EngineError(f"{answered}. Is base_url right, and does the server have this model?")
    if 300 <= status < 400:
        where = hide(headers.get("location", "")).partition("?")[0] or "elsewhere"
        return EngineError(f"{answered}. It sends requests to {where}: give that API as base_url")
    if status == 429 and code != "insufficient_quota":
        after_s = pause_s(headers.get("retry-after"))
        return TryAgain(answered, after_s=after_s, most_attempts=_MANY_ATTEMPTS)
    if status in (502, 503, 504):
        after_s = pause_s(headers.get("retry-after"))
        return TryAgain(answered, after_s=after_s, most_attempts=_MANY_ATTEMPTS)
    if status >= 500 or status == 408:
        return TryAgain(answered)
    if status == 429:
        return EngineError(f"{answered}. The account has no quota left")
    if "context length" in said or "context window" in said or code == "context_length_exceeded":
        return RequestError(
            f"{answered}. Shorten the prompt, lower max_tokens, or use a model that holds more"
        )
    return RequestError(answered)


def _said(body: str) -> tuple[str, str]:
    """The code of an error and its message, wherever a server puts them."""
    found: Any = None
    with suppress(ValueError):
        found = json.loads(body)
    if isinstance(found, dict):
        found = found.get("error", found)
    if isinstance(found, dict):
        message = found.get("message") or found.get("detail") or body
        return str(found.get("code") or found.get("type") or ""), str(message)
    if isinstance(found, str) and found:
        return "", found
    return "", " ".join(body.split())


def pause_s(retry_after: str | None) -> float | None:
    """Seconds to wait by a ``Retry-After`` header: a number, or a date; `None` without one."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), MOST_PAUSE_S)
