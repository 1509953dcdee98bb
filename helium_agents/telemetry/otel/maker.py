"""Makes spans of records, through the tracer of an application."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from helium_agents.telemetry.otel import conventions as names
from helium_agents.telemetry.otel.attributes import ended, failure_of, shared_with, started
from helium_agents.telemetry.otel.latest import Latest
from helium_agents.telemetry.otel.metrics import Metrics
from helium_agents.telemetry.otel.records import Answer, Began, Ended

_KINDS = {"client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Maker:
    """Begins and ends spans.

    Args:
        tracer: Makes them, with ids of its own.
        metrics: Counts them.
    """

    def __init__(self, tracer: Tracer, metrics: Metrics) -> None:
        self._tracer = tracer
        self._metrics = metrics
        self._open: dict[int, tuple[Span, Began]] = {}
        self._contexts = Latest[int, SpanContext]()  # by our id

    def began(self, record: Began) -> None:
        """Begin a span."""
        name, kind, attributes = started(record.work)
        span = self._tracer.start_span(
            name,
            context=self._above(record),
            kind=_KINDS[kind],
            attributes=attributes,
            start_time=record.start_ns,
        )
        self._open[record.span] = span, record
        self._contexts[record.span] = span.get_span_context()

    def ended(self, record: Ended) -> None:
        """End a span; none whose beginning was lost."""
        found = self._open.pop(record.span, None)
        if found is None:
            return
        span, began = found
        span.set_attributes(ended(began.work, record))
        if record.answer is not None:
            self._link(span, record.answer)
        failure = failure_of(record)
        if failure is not None:
            span.set_status(Status(StatusCode.ERROR, failure))
        span.end(record.end_ns)
        self._metrics.record(began, record)

    def context_of(self, span: int) -> SpanContext | None:
        """Which span was made of a record of late."""
        return self._contexts.get(span)

    def _above(self, record: Began) -> Context:
        if not record.parent:
            return Context()
        found = self._open.get(record.parent)
        if found is not None:
            return set_span_in_context(found[0], Context())
        return set_span_in_context(_elsewhere(record.trace, record.parent), Context())

    def _link(self, span: Span, answer: Answer) -> None:
        """Link to the call whose answer is shared; some backends show attributes alone."""
        if answer.leader is None:
            return
        context = self._contexts.get(answer.leader[1])
        if context is not None:
            span.add_link(context, {names.SOURCE: answer.source})
            span.set_attributes(shared_with(context.trace_id, context.span_id))


def _elsewhere(trace: bytes, span: int) -> NonRecordingSpan:
    trace_id = int.from_bytes(trace, "big")
    return NonRecordingSpan(SpanContext(trace_id, span, is_remote=True, trace_flags=_SAMPLED))
