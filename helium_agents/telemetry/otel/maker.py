"""Makes spans of records, through the tracer of an SDK: the helper's own, or an application's."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
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
from helium_agents.telemetry.otel.attributes import ended, started
from helium_agents.telemetry.otel.latest import Latest
from helium_agents.telemetry.otel.metrics import Metrics
from helium_agents.telemetry.otel.records import Answer, Began, Ended

_KINDS = {"client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class GivenIds(IdGenerator):
    """Gives the next span the ids that its record has."""

    def __init__(self) -> None:
        self.trace = self.span = 0

    def generate_span_id(self) -> int:
        """The record's."""
        return self.span

    def generate_trace_id(self) -> int:
        """The record's; asked for where a span has no parent."""
        return self.trace


class Maker:
    """Begins and ends spans.

    Args:
        tracer: Makes them.
        metrics: Counts them.
        ids: Where the tracer has its ids from, if it takes ours.
    """

    def __init__(self, tracer: Tracer, metrics: Metrics, ids: GivenIds | None = None) -> None:
        self._tracer = tracer
        self._metrics = metrics
        self._ids = ids
        self._open: dict[int, tuple[Span, Began]] = {}
        self._contexts = Latest[int, SpanContext]()  # by our id, where theirs is another

    def began(self, record: Began) -> None:
        """Begin a span."""
        name, kind, attributes = started(record.work)
        if self._ids is not None:
            self._ids.trace, self._ids.span = int.from_bytes(record.trace, "big"), record.span
        span = self._tracer.start_span(
            name,
            context=self._above(record),
            kind=_KINDS[kind],
            attributes=attributes,
            start_time=record.start_ns,
        )
        self._open[record.span] = span, record
        if self._ids is None:
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
        if record.error is not None:
            span.set_status(Status(StatusCode.ERROR, record.error[1] or record.error[0]))
        span.end(record.end_ns)
        self._metrics.record(began, record)

    def end_all(self, end_ns: int, why: str) -> None:
        """End what is open, innermost first: nobody will tell of its end any more."""
        for span, began in reversed(self._open.values()):
            span.set_attribute(names.INTERRUPTED, True)
            span.set_status(Status(StatusCode.ERROR, why))
            span.end(max(end_ns, began.start_ns))
        self._open.clear()

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
        trace, leader = answer.leader
        if self._ids is None:
            context = self._contexts.get(leader)
        else:
            context = _elsewhere(trace, leader).get_span_context()
        if context is not None:
            span.add_link(context, {names.SOURCE: answer.source})
            span.set_attribute(names.SHARED_TRACE_ID, f"{context.trace_id:032x}")
            span.set_attribute(names.SHARED_SPAN_ID, f"{context.span_id:016x}")


def _elsewhere(trace: bytes, span: int) -> NonRecordingSpan:
    trace_id = int.from_bytes(trace, "big")
    return NonRecordingSpan(SpanContext(trace_id, span, is_remote=True, trace_flags=_SAMPLED))
