"""Sends spans by a stock exporter, where the protocol is not HTTP: it wants spans of the SDK."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from helium_agents.telemetry.otel import conventions as names
from helium_agents.telemetry.otel.attributes import ended, failure_of, shared_with, started
from helium_agents.telemetry.otel.limits import Limits
from helium_agents.telemetry.otel.records import Whole
from helium_agents.telemetry.otel.sending import Outcome

_KINDS = {"client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope(names.SCOPE)


class Stock:
    """Makes spans of the SDK and hands them over.

    Args:
        exporter: Sends them; it logs what it complains of.
        resource: What they are of.
        limits: Of each span's attributes.
    """

    def __init__(self, exporter: SpanExporter, resource: Resource, limits: Limits) -> None:
        self._exporter = exporter
        self._resource = resource
        self._limits = limits

    def export(self, spans: Sequence[Whole]) -> Outcome:
        """Send spans."""
        made = [readable(whole, self._resource, self._limits) for whole in spans]
        has_sent = self._exporter.export(made) is SpanExportResult.SUCCESS
        return Outcome(0 if has_sent else len(made))


def readable(whole: Whole, resource: Resource, limits: Limits) -> ReadableSpan:
    """A span of the SDK."""
    began, end, is_entry = whole
    trace = int.from_bytes(began.trace, "big")
    name, kind, attributes = started(began.work)
    attributes |= ended(began.work, end)
    links = []
    if end.answer is not None and end.answer.leader is not None:
        leader = _context(int.from_bytes(end.answer.leader[0], "big"), end.answer.leader[1])
        attributes |= shared_with(leader.trace_id, leader.span_id)
        links.append(Link(leader, {names.SOURCE: end.answer.source}))
    failure = failure_of(end)
    return ReadableSpan(
        name,
        _context(trace, began.span),
        _context(trace, began.parent, is_remote=is_entry) if began.parent else None,
        resource,
        limits.apply(attributes),
        links=links,
        kind=_KINDS[kind],
        instrumentation_scope=_SCOPE,
        status=Status() if failure is None else Status(StatusCode.ERROR, failure),
        start_time=began.start_ns,
        end_time=end.end_ns,
    )


def _context(trace: int, span: int, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace, span, is_remote, _SAMPLED)
