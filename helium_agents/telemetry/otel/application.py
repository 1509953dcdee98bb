"""The sink of an application that has set up OpenTelemetry itself: its tracer, in its process."""

from __future__ import annotations

from typing import Any

from helium_agents.telemetry.otel import conventions as names
from helium_agents.telemetry.otel.context import Place
from helium_agents.telemetry.otel.records import Began, Ended, Record, well_formed


class InProcess:
    """Makes spans at once.

    Args:
        provider: The application's.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry.metrics import get_meter_provider

        from helium_agents.telemetry.otel.maker import Maker
        from helium_agents.telemetry.otel.metrics import Metrics

        metrics = Metrics(get_meter_provider().get_meter(names.SCOPE))
        self._maker = Maker(provider.get_tracer(names.SCOPE), metrics)

    def put(self, record: Record) -> None:
        """Make or end a span."""
        record = well_formed(record)
        if isinstance(record, Began):
            self._maker.began(record)
        elif isinstance(record, Ended):
            self._maker.ended(record)

    def traceparent(self, place: Place) -> str:
        """The application's tracer has given ids of its own."""
        context = self._maker.context_of(place.span)
        if context is None:
            return place.traceparent
        trace = context.trace_id.to_bytes(16, "big")
        return Place(trace, context.span_id, bool(context.trace_flags & 1)).traceparent

    async def close(self, end_ns: int) -> tuple[int, str]:
        """The application sends its spans itself."""
        return 0, ""
