"""The helper process: reads records, makes spans of them, and sends them off by the stock exporter.

It is a process of its own so that the run's takes nearly nothing for it, and so that spans which
were open when the run was killed are ended and sent. It reads no faster than it sends: what it is
behind waits in the pipe, and beyond that in the run, within bounds.
"""

from __future__ import annotations

import importlib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from helium_agents.telemetry.otel import conventions as names
from helium_agents.telemetry.otel.maker import GivenIds, Maker
from helium_agents.telemetry.otel.metrics import Metrics
from helium_agents.telemetry.otel.records import (
    LENGTH_BYTES,
    Began,
    Closed,
    Ended,
    Record,
    Told,
)

_LOOK_S = 0.5
"""How often it looks whether the run is still there; a pipe may be kept open by its children."""

_SPANS_BETWEEN_FLUSHES = 1_000
"""The stock processor drops what is beyond its queue, 2,048 by default."""

_MOST_AFTER_END_S = 30


class Reporter:
    """Tells the run what became of spans, a line of JSON each.

    Args:
        file: Where the run listens.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self.num_delivered = self.num_lost = 0
        self.reason = ""

    def report(self) -> None:
        """Tell it, unless nobody listens any more."""
        line = msgspec.json.encode(Told(self.num_delivered, self.num_lost, self.reason))
        try:
            os.write(self._file, line + b"\n")
        except OSError:
            return


class Counted(SpanExporter):
    """Counts what an exporter delivers.

    Args:
        exporter: The stock one.
        reporter: Told of it.
    """

    def __init__(self, exporter: SpanExporter, reporter: Reporter) -> None:
        self._exporter = exporter
        self._reporter = reporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._reporter.num_delivered += len(spans)
        else:
            self._reporter.num_lost += len(spans)
        self._reporter.report()
        return result

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()


class Complaints(logging.Handler):
    """Hears what the SDK complains of, which would be lost otherwise.

    Args:
        reporter: Told of it.
    """

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the run."""
        self._reporter.reason = record.getMessage()
        self._reporter.report()


def main(parent: int) -> None:
    """Read records from standard input until the run has ended or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run's end is ours
    reporter = Reporter(sys.stdout.fileno())
    log = logging.getLogger("opentelemetry")
    log.addHandler(Complaints(reporter))
    log.propagate = False
    ids = GivenIds()
    provider, meters = _providers(ids, reporter)
    maker = Maker(provider.get_tracer(names.SCOPE), Metrics(meters.get_meter(names.SCOPE)), ids)
    has_closed, num_ended, end_ns = False, 0, 0
    for record in _records(sys.stdin.fileno(), parent):
        if isinstance(record, Began):
            maker.began(record)
        elif isinstance(record, Ended):
            maker.ended(record)
            num_ended += 1
            if num_ended % _SPANS_BETWEEN_FLUSHES == 0:
                provider.force_flush()
        else:
            has_closed, end_ns = True, record.end_ns
    signal.alarm(_MOST_AFTER_END_S)  # a collector that does not answer must not keep us
    why = "its end was lost" if has_closed else "the run was killed before its end"
    maker.end_all(end_ns or time.time_ns(), why)
    provider.shutdown()
    meters.shutdown()
    reporter.report()


def _records(file: int, parent: int) -> Iterator[Record]:
    """What comes through the pipe, until it is closed or the run is gone."""
    decode = msgspec.msgpack.Decoder(list[Began | Ended | Closed]).decode
    data = bytearray()
    while True:
        is_ready, _, _ = select.select([file], [], [], _LOOK_S)
        if not is_ready:
            if os.getppid() != parent:
                return
            continue
        piece = os.read(file, 2**20)
        if not piece:
            return
        data += piece
        while len(data) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
            if len(data) < end:
                break
            yield from decode(memoryview(data)[LENGTH_BYTES:end].tobytes())
            del data[:end]


def _providers(ids: GivenIds, reporter: Reporter) -> tuple[TracerProvider, MeterProvider]:
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME)).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: names.SCOPE}))
    # which traces are recorded was decided where they began
    provider = TracerProvider(sampler=sampling.ALWAYS_ON, resource=resource, id_generator=ids)
    provider.add_span_processor(BatchSpanProcessor(Counted(_exporter("trace", "Span"), reporter)))
    readers: list[Any] = []
    if os.environ.get("OTEL_METRICS_EXPORTER", "otlp") in ("", "otlp"):
        readers.append(PeriodicExportingMetricReader(_exporter("metric", "Metric")))
    return provider, MeterProvider(readers, resource)


def _exporter(signal_name: str, class_name: str) -> Any:
    """The stock exporter of the protocol that the environment names."""
    protocol = (
        os.environ.get(f"OTEL_EXPORTER_OTLP_{signal_name.upper()}S_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    package = "grpc" if protocol == "grpc" else "http"
    module = f"opentelemetry.exporter.otlp.proto.{package}.{signal_name}_exporter"
    return getattr(importlib.import_module(module), f"OTLP{class_name}Exporter")()
