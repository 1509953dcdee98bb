"""What the tests of OpenTelemetry share: a workflow, spans in memory, and a collector."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from helium_agents import gather, llm, operator, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.telemetry.otel.context import Place
from helium_agents.telemetry.otel.limits import Limits
from helium_agents.telemetry.otel.metrics import Metrics
from helium_agents.telemetry.otel.pairing import OpenSpans
from helium_agents.telemetry.otel.records import Began, Ended, Record, Whole
from helium_agents.telemetry.otel.stock import readable


class VllmLike(ScriptedEngine):
    """Says of itself what vLLM does."""

    provider = "vllm"


@operator
async def expert(question: str, role: str) -> str:
    return (await llm(user(f"As {role}: {question}"), max_tokens=16)).text


@operator
async def answer(question: str) -> str:
    views = await gather(*(expert(question, role) for role in ("a reader", "an editor")))
    return (await llm(user("Merge: " + " ".join(views)), max_tokens=16)).text


class Made:
    """A sink that makes spans in memory, as the helper process does."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.spans: list[ReadableSpan] = []
        self.wholes: list[Whole] = []
        self._open = OpenSpans()
        self._reader = InMemoryMetricReader()
        self._metrics = Metrics(MeterProvider([self._reader]).get_meter("tests"))

    def put(self, record: Record) -> None:
        self.records.append(record)
        if isinstance(record, Began):
            self._open.began(record)
        elif isinstance(record, Ended):
            whole = self._open.ended(record)
            assert whole is not None
            self._metrics.record(whole.began, record)
            self.wholes.append(whole)
            self.spans.append(readable(whole, Resource({}), Limits()))

    def traceparent(self, place: Place) -> str:
        return place.traceparent

    async def close(self, end_ns: int) -> tuple[int, str]:
        return 0, ""

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name.startswith(start)]

    def tree(self) -> Any:
        return tree_of(
            {
                span.context.span_id: (span.parent.span_id if span.parent else 0, span.name)
                for span in self.spans
                if span.context is not None
            }
        )

    def metrics(self) -> dict[str, list[Any]]:
        """The data points by the name of their metric."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def tree_of(parents: dict[Any, tuple[Any, str]]) -> Any:
    """Nested sorted lists of names, of spans by id with their parents' ids; all must hang."""

    def below(parent: Any) -> Any:
        found = [(name, below(id_)) for id_, (above, name) in parents.items() if above == parent]
        return [name if not inner else [name, *inner] for name, inner in sorted(found, key=str)]

    roots = {above for above, _ in parents.values()} - parents.keys()
    return [each for root in sorted(roots, key=str) for each in below(root)]


class Collector:
    """What a local collector was sent.

    Args:
        url: Where it listens.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.metrics: set[str] = set()
        self.has_spans = threading.Event()

    def take(self, path: str, data: bytes) -> None:
        if path == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(data).resource_metrics:
                for scope in resource.scope_metrics:
                    self.metrics |= {metric.name for metric in scope.metrics}
            return
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.add(named["service.name"])
            for scope in resource.scope_spans:
                self.spans += scope.spans
        self.has_spans.set()

    def tree(self) -> Any:
        return tree_of({span.span_id: (span.parent_span_id, span.name) for span in self.spans})


def attributes(span: Any) -> dict[str, Any]:
    """The attributes of a span as protobuf has it."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that takes spans and metrics by OTLP over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def content_of(span: ReadableSpan, name: str) -> Any:
    """What is captured of a conversation."""
    assert span.attributes is not None
    return json.loads(str(span.attributes[name]))
