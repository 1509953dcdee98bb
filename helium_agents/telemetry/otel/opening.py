"""Which a session has: spans by the helper process, by the application's tracer, or none.

What makes them is imported by sessions that have some: it needs packages that others do without.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from helium_agents.errors import SessionError
from helium_agents.telemetry.events import Observer
from helium_agents.telemetry.otel.settings import (
    Otlp,
    asks_for_spans,
    captures_content,
    is_disabled,
)

if TYPE_CHECKING:
    from helium_agents.telemetry.otel.spans import Spans

_NEEDED = ("msgspec", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto")
_INSTALL = 'pip install "helium_agents[otel]"'


def open_spans(otlp: Otlp | bool | None, run_id: str, emit: Observer) -> Spans | None:
    """The observer that a session's `otlp=` and the environment ask for, if they do.

    Where nothing is said, that is one for the application's own tracer provider, if it has set one;
    or else for the collector that the environment names.

    Raises:
        SessionError: It was asked for, and what it needs is not installed.
    """
    environ = os.environ
    if otlp is False or is_disabled(environ):
        return None
    settings = otlp if isinstance(otlp, Otlp) else Otlp()
    content = captures_content(environ) if settings.content is None else settings.content
    provider = application_provider() if otlp is None else None
    if otlp is None and provider is None and not asks_for_spans(environ):
        return None
    if not _is_installed(is_asked_for=otlp is not None):
        return None
    from helium_agents.telemetry.otel.application import InProcess
    from helium_agents.telemetry.otel.pipe import Pipe
    from helium_agents.telemetry.otel.spans import Spans

    if provider is not None:
        return Spans(InProcess(provider), run_id, content=content, emit=emit)
    place = settings.endpoint or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "the collector"
    pipe = Pipe(settings.environment(environ), place)
    return Spans(pipe, run_id, content=content, emit=emit)


def application_provider() -> Any:
    """The tracer provider that the application has set; `None` where it has set none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    is_none = isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider))
    return None if is_none else provider


def _is_installed(*, is_asked_for: bool) -> bool:
    missing = [name for name in _NEEDED if not _is_there(name)]
    if not missing:
        return True
    message = f"OpenTelemetry needs {', '.join(missing)}, which is not installed: {_INSTALL}"
    if is_asked_for:
        raise SessionError(f"otlp=: {message}")
    warnings.warn(f"no spans are made: {message}", RuntimeWarning, stacklevel=2)
    return False


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
