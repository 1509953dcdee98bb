"""`Otlp`: where spans and metrics are sent, and what the environment says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from helium_agents.errors import SessionError

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_METRICS_ENDPOINT = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


@dataclass(frozen=True)
class Otlp:
    """Where spans and metrics are sent by OTLP, and whether they have prompts and answers in them.

    Args:
        endpoint: A collector, e.g. ``http://localhost:4318``; what ends in ``/v1/traces`` gets
            spans only. By default what `OTEL_EXPORTER_OTLP_ENDPOINT` and its kin say, whose other
            settings (headers, protocol, timeout, ...) count in any case.
        content: Whether the texts of prompts, answers and errors are sent; by default what
            `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says, and without it they are not.

    Raises:
        SessionError: The endpoint is no URL.
    """

    endpoint: str | None = None
    content: bool | None = None

    def __post_init__(self) -> None:
        if self.endpoint is None:
            return
        url = urlsplit(self.endpoint) if isinstance(self.endpoint, str) else None
        if url is None or url.scheme not in ("http", "https") or not url.hostname:
            raise SessionError(
                f"otlp={self.endpoint!r} must be the URL of a collector, as http://localhost:4318"
            )

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of the process that sends, which the stock exporter reads."""
        own = dict(environ)
        if self.endpoint is None:
            return own
        for name in (_ENDPOINT, _TRACES_ENDPOINT, _METRICS_ENDPOINT):
            own.pop(name, None)
        if self.endpoint.rstrip("/").endswith("/v1/traces"):
            return own | {_TRACES_ENDPOINT: self.endpoint, "OTEL_METRICS_EXPORTER": "none"}
        return own | {_ENDPOINT: self.endpoint}


def as_otlp(otlp: Any) -> Otlp | bool | None:
    """What a session's `otlp=` means.

    Raises:
        SessionError: It is neither a URL nor an `Otlp`, a truth value or `None`.
    """
    if isinstance(otlp, str):
        return Otlp(otlp)
    if otlp is None or isinstance(otlp, bool | Otlp):
        return otlp
    raise SessionError(f"otlp={otlp!r} must be a URL, an Otlp(...), True, False or None")


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Whether the environment switches all of OpenTelemetry off."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def asks_for_spans(environ: Mapping[str, str]) -> bool:
    """Whether the environment names a collector, and does not say that it gets no spans."""
    has_endpoint = bool(environ.get(_ENDPOINT) or environ.get(_TRACES_ENDPOINT))
    return has_endpoint and environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() in ("", "otlp")


def captures_content(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for content in spans."""
    return environ.get(_CAPTURE, "").strip().lower() in ("true", "span_only", "span_and_event")
