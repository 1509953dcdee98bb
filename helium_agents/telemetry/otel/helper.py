"""The helper process: reads records, brings them together as spans, and sends these off.

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
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanLimits

from helium_agents.telemetry.otel import conventions as names
from helium_agents.telemetry.otel.batches import Batches, BatchSizes
from helium_agents.telemetry.otel.limits import Limits
from helium_agents.telemetry.otel.metrics import Metrics
from helium_agents.telemetry.otel.pairing import OpenSpans
from helium_agents.telemetry.otel.protobuf import Encoder
from helium_agents.telemetry.otel.records import LENGTH_BYTES, Began, Closed, Ended, Record
from helium_agents.telemetry.otel.sending import Exporter, Reporter, Sender
from helium_agents.telemetry.otel.stock import Stock

_CREDENTIAL_PROVIDERS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)

_LOOK_S = 0.5
"""How often it looks whether the run is still there; a pipe may be kept open by its children."""

_PATIENCE_S, _MOST_AFTER_END_S = 5.0, 30.0
"""How long after the run's end it waits for a collector that does not answer, and for one that is
slow."""


class Patience:
    """Says when to give up: never while the run goes on.

    Args:
        parent: The process of the run.
        sender: Knows when the collector answered last.
    """

    def __init__(self, parent: int, sender: Sender) -> None:
        self._parent = parent
        self._sender = sender
        self._over_s: float | None = None

    def begin(self) -> None:
        """The run is over."""
        self._over_s = self._over_s or time.monotonic()

    def __call__(self) -> bool:
        """Whether to give up."""
        if self._over_s is None:
            if os.getppid() == self._parent:
                return False
            self.begin()
        over_s, now_s = self._over_s or 0.0, time.monotonic()
        quiet_s = now_s - max(over_s, self._sender.news_s)
        return quiet_s > _PATIENCE_S or now_s - over_s > _MOST_AFTER_END_S


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
        self._reporter.complain(record.getMessage())


def main(parent: int) -> None:
    """Read records from standard input until the run has ended or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the run's end is ours
    reporter = Reporter(sys.stdout.fileno())
    log = logging.getLogger("opentelemetry")
    log.addHandler(Complaints(reporter))
    log.propagate = False
    resource = _resource()
    meters = _meters(resource)
    metrics = Metrics(meters.get_meter(names.SCOPE))
    sizes = BatchSizes.of(os.environ)
    sender = Sender(_exporter(resource, reporter), reporter, sizes.num_waiting)
    patience = Patience(parent, sender)
    batches = Batches(sizes, lambda batch: sender.put(batch, patience))
    reporter.report()  # that we are there
    spans, end_ns = OpenSpans(), 0
    for records, num_bytes in _frames(sys.stdin.fileno(), parent, min(_LOOK_S, sizes.delay_s)):
        for record in records:
            if isinstance(record, Began):
                spans.began(record)
            elif isinstance(record, Closed):
                end_ns = record.end_ns
            elif whole := spans.ended(record):
                metrics.record(whole.began, record)
                batches.add(whole)
        batches.look(num_bytes)
    patience.begin()
    why = "its end was lost" if end_ns else "the run was killed before its end"
    for whole in spans.end_all(end_ns or time.time_ns(), why):
        batches.add(whole)
    batches.flush()
    _finish(sender, meters, patience)
    reporter.report()
    os._exit(0)  # whatever still waits for a collector


def _finish(sender: Sender, meters: MeterProvider, patience: Patience) -> None:
    """Wait until all is sent, or there is no hope."""
    last = threading.Thread(target=meters.shutdown, args=(_PATIENCE_S * 1e3,), daemon=True)
    last.start()
    sender.finish(patience)
    while last.is_alive() and not patience():
        last.join(0.1)


def _frames(file: int, parent: int, look_s: float) -> Iterator[tuple[list[Record], int]]:
    """What comes through the pipe, with its size, until it is closed or the run is gone.

    Where nothing comes, it says so from time to time.
    """
    decode = msgspec.msgpack.Decoder(list[Began | Ended | Closed]).decode
    data = bytearray()
    while True:
        is_ready, _, _ = select.select([file], [], [], look_s)
        if not is_ready:
            if os.getppid() != parent:
                return
            yield [], 0
            continue
        piece = os.read(file, 2**20)
        if not piece:
            return
        data += piece
        while len(data) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "big")
            if len(data) < end:
                break
            yield decode(memoryview(data)[LENGTH_BYTES:end].tobytes()), end
            del data[:end]


def _resource() -> Resource:
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME)).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: names.SCOPE}))
    return resource


def _meters(resource: Resource) -> MeterProvider:
    readers: list[Any] = []
    if os.environ.get("OTEL_METRICS_EXPORTER", "otlp") in ("", "otlp"):
        readers.append(PeriodicExportingMetricReader(_stock_exporter("metric", "Metric")))
    return MeterProvider(readers, resource, shutdown_on_exit=False)


def _exporter(resource: Resource, reporter: Reporter) -> Exporter:
    """What sends spans: the stock exporter only where it knows more than we do, for it is slow."""
    read = SpanLimits()
    limits = Limits(read.max_span_attributes, read.max_span_attribute_length)
    is_http = _protocol("trace") != "grpc"
    if is_http and not any(os.environ.get(name) for name in _CREDENTIAL_PROVIDERS):
        from helium_agents.telemetry.otel.http import OtlpHttp  # gRPC needs no requests

        return OtlpHttp(os.environ, Encoder(resource, limits), reporter)
    return Stock(_stock_exporter("trace", "Span"), resource, limits)


def _protocol(signal_name: str) -> str:
    return (
        os.environ.get(f"OTEL_EXPORTER_OTLP_{signal_name.upper()}S_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )


def _stock_exporter(signal_name: str, class_name: str) -> Any:
    """The stock exporter of the protocol that the environment names."""
    package = "grpc" if _protocol(signal_name) == "grpc" else "http"
    module = f"opentelemetry.exporter.otlp.proto.{package}.{signal_name}_exporter"
    return getattr(importlib.import_module(module), f"OTLP{class_name}Exporter")()
