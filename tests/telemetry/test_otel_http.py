"""Spans reach collectors that are busy, slow or particular; what does not reach them is counted."""

from __future__ import annotations

import gzip
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from tenacity import wait_none

from helium_agents.telemetry.otel import http
from helium_agents.telemetry.otel.http import OtlpHttp
from helium_agents.telemetry.otel.limits import Limits
from helium_agents.telemetry.otel.protobuf import Encoder
from helium_agents.telemetry.otel.records import Agent, Began, Ended, Told, Whole
from helium_agents.telemetry.otel.sending import Outcome, Reporter

SPANS = [
    Whole(Began(number, 0, bytes(16), 1, Agent("flow:f")), Ended(number, 2, None, None), True)
    for number in (1, 2, 3)
]

Reply = tuple[int, Mapping[str, str], bytes]
OK: Reply = (200, {}, b"")


class Scripted:
    """A collector that answers as it is told, and then well.

    Args:
        replies: Status, headers and body of each answer; `None` to close the connection, a number
            of seconds to wait as long before that.
    """

    def __init__(self, replies: list[Reply | float | None]) -> None:
        self.replies = replies
        self.asked: list[tuple[str, Mapping[str, str], bytes]] = []
        self.is_over = threading.Event()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        data = handler.rfile.read(int(handler.headers["content-length"]))
        self.asked.append((handler.path, dict(handler.headers), data))
        reply = self.replies.pop(0) if self.replies else OK
        if not isinstance(reply, tuple):
            self.is_over.wait(reply or 0.0)
            handler.close_connection = True
            return
        status, headers, body = reply
        handler.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def scripted(*replies: Reply | float | None) -> Iterator[tuple[Scripted, str]]:
    collector = Scripted(list(replies))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            collector.answer(self)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield collector, f"http://127.0.0.1:{server.server_port}"
    finally:
        collector.is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_back_off_s", wait_none())


def export(url: str, **settings: str) -> tuple[Outcome, list[Told]]:
    """What became of three spans, and what the run was told meanwhile."""
    reading, writing = os.pipe()
    try:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
        environ |= {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in settings.items()}
        encoder = Encoder(Resource({}), Limits())
        outcome = OtlpHttp(environ, encoder, Reporter(writing)).export(SPANS)
        os.write(writing, b"\n")
        lines = os.read(reading, 2**16).splitlines()
    finally:
        os.close(reading)
        os.close(writing)
    return outcome, [msgspec.json.decode(line, type=Told) for line in lines if line]


def num_spans(data: bytes) -> int:
    (resource,) = ExportTraceServiceRequest.FromString(data).resource_spans
    return len(resource.scope_spans[0].spans)


# --- it is tried again ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_collector_that_is_busy_is_asked_again(status: int) -> None:
    with scripted((status, {"retry-after": "0"}, b""), (status, {}, b"")) as (collector, url):
        outcome, told = export(url)
    assert outcome.num_lost == 0
    assert [num_spans(data) for _, _, data in collector.asked] == [3, 3, 3]
    assert [(each.is_down, str(status) in each.trouble) for each in told] == [(False, True)] * 2


def test_a_connection_that_closes_is_made_again() -> None:
    with scripted(None, OK) as (collector, url):
        outcome, told = export(url)
    assert outcome.num_lost == 0
    assert len(collector.asked) == 2
    assert [each.is_down for each in told] == [True]


def test_who_wants_to_be_asked_later_than_there_is_time_is_given_up() -> None:
    with scripted((503, {"retry-after": "3600"}, b"")) as (collector, url):
        outcome, _ = export(url)
    assert outcome.num_lost == 3
    assert "503" in outcome.reason
    assert len(collector.asked) == 1


def test_who_is_always_busy_is_given_up_when_the_time_is_over() -> None:
    busy: Reply = (429, {"retry-after": "1"}, b"")
    with scripted(*[busy] * 9) as (collector, url):
        outcome, _ = export(url, TIMEOUT="1.5")
    assert outcome.num_lost == 3
    assert len(collector.asked) < 3


def test_who_does_not_answer_in_time_is_given_up() -> None:
    with scripted(60.0, 60.0, 60.0) as (_, url):
        outcome, _ = export(url, TIMEOUT="0.2")
    assert outcome.num_lost == 3
    assert "timed out" in outcome.reason


# --- it is not -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 500])
def test_who_refuses_is_asked_once(status: int) -> None:
    with scripted((status, {"location": "/elsewhere"}, b"no")) as (collector, url):
        outcome, _ = export(url)
    assert outcome.num_lost == 3
    assert str(status) in outcome.reason
    assert len(collector.asked) == 1


def test_what_is_taken_in_part_is_counted() -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 2
    answer.partial_success.error_message = "too old"
    body = answer.SerializeToString()
    with scripted((200, {"content-type": "application/x-protobuf"}, body)) as (_, url):
        assert export(url)[0] == Outcome(2, "too old")


@pytest.mark.parametrize("body", [b"", b"\xff\xff", b"{}"])
def test_what_a_collector_says_besides_may_be_anything(body: bytes) -> None:
    with scripted((200, {"content-type": "application/x-protobuf"}, body)) as (_, url):
        assert export(url)[0].num_lost == 0


# --- the environment -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "decompress"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)]
)
def test_the_environment_compresses(name: str, decompress: Any) -> None:
    with scripted() as (collector, url):
        export(url, COMPRESSION=name)
    ((_, headers, data),) = collector.asked
    assert headers["content-encoding"] == name
    assert num_spans(decompress(data)) == 3


def test_the_environment_has_headers_and_a_path() -> None:
    with scripted() as (collector, url):
        export(url, HEADERS="api-key=a%20b,other=2")
        export(
            "http://nowhere", TRACES_ENDPOINT=f"{url}/own", TRACES_HEADERS="third=3", HEADERS="a=1"
        )
    (_, first, _), (_, second, _) = collector.asked
    assert [path for path, _, _ in collector.asked] == ["/v1/traces", "/own"]
    assert (first["api-key"], first["other"], first["content-type"]) == (
        "a b", "2", "application/x-protobuf",
    )  # fmt: skip
    assert second["third"] == "3"
    assert "a" not in second


def test_what_the_environment_says_wrongly_is_told() -> None:
    with scripted() as (_, url):
        outcome, told = export(url, COMPRESSION="zip", TIMEOUT="soon")
    assert outcome.num_lost == 0
    assert ["zip" in each.trouble or "soon" in each.trouble for each in told] == [True, True]
