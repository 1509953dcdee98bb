"""Which sessions make spans: those that are told to, or whose application does, or environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otel_made import VllmLike, expert

from helium_agents import Session
from helium_agents.errors import SessionError
from helium_agents.telemetry.otel import Otlp, opening
from helium_agents.telemetry.otel.context import place_of
from helium_agents.telemetry.otel.opening import open_spans
from helium_agents.telemetry.otel.settings import captures_content


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of an application that has a tracer provider."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def nobody(*_: Any) -> None:
    raise AssertionError


# --- the application's own -----------------------------------------------------------------------


async def test_an_application_has_our_spans_among_its_own(exported: InMemorySpanExporter) -> None:
    headers: list[str] = []

    class Asked(VllmLike):
        async def complete(self, request: Any, on_delta: Any = None) -> Any:
            headers.append(request.headers["traceparent"])
            return await super().complete(request, on_delta)

    async with Session(Asked()) as session:
        with trace.get_tracer("the application").start_as_current_span("web request") as own:
            found = [each async for each in session.map(as_reader, ["a", "a"])]
    assert len(found) == 2
    spans = exported.get_finished_spans()
    assert {span.context.trace_id for span in spans} == {own.get_span_context().trace_id}
    by_id = {span.context.span_id: span for span in spans}
    (workflow,) = [span for span in spans if span.name.startswith("invoke_workflow")]
    assert by_id[workflow.parent.span_id].name == "web request"
    (link,) = [link for span in spans for link in span.links]
    computed = by_id[link.context.span_id]
    assert computed.attributes["helium.source"] == "engine"
    (place,) = map(place_of, headers)
    assert place is not None
    assert place.span == computed.context.span_id


async def as_reader(question: str) -> str:
    return await expert(question, "a reader")


async def test_an_application_may_have_none_of_ours(exported: InMemorySpanExporter) -> None:
    async with Session(VllmLike(), otlp=False):
        await expert("a", "a reader")
    assert exported.get_finished_spans() == ()


# --- who asks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("otlp", "environ"),
    [
        (None, {}),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}),
        (False, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}),
        (Otlp("http://x"), {"OTEL_SDK_DISABLED": "true"}),
    ],
)
async def test_nobody_observes_unless_asked(
    otlp: Any, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert open_spans(otlp, "run", nobody) is None


async def test_a_session_that_nobody_watches_numbers_no_calls() -> None:
    async with Session(VllmLike()):
        ref = expert("a", "a reader")
        await ref
    assert ref.node.number == 0


async def test_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    spans = open_spans(None, "run", nobody)
    assert spans is not None
    await spans.close()  # of none, which nobody misses


def test_an_endpoint_replaces_the_environments() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b",
        "OTEL_EXPORTER_OTLP_HEADERS": "key=1",
    }
    assert Otlp("http://c:4318").environment(environ) == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "key=1",
    }
    assert Otlp("http://c/v1/traces").environment(environ) == {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces",
        "OTEL_EXPORTER_OTLP_HEADERS": "key=1",
        "OTEL_METRICS_EXPORTER": "none",
    }
    assert Otlp().environment(environ) == environ


@pytest.mark.parametrize("otlp", ["", "localhost:4318", "ftp://x", 7, Session])
def test_what_is_no_collector_is_refused(otlp: Any) -> None:
    with pytest.raises(SessionError, match="otlp="):
        Session(VllmLike(), otlp=otlp)


@pytest.mark.parametrize(
    ("value", "captures"),
    [("", False), ("false", False), ("NO_CONTENT", False), ("True", True), ("SPAN_ONLY", True)],
)
def test_the_environment_asks_for_content(value: str, captures: bool) -> None:
    name = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    assert captures_content({name: value}) is captures


# --- what is missing -----------------------------------------------------------------------------


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None)


@pytest.mark.usefixtures("without_the_extra")
async def test_asked_for_without_the_extra_says_what_to_install() -> None:
    with pytest.raises(SessionError, match=r"pip install .helium_agents\[otel\]"):
        async with Session(VllmLike(), otlp="http://127.0.0.1:1"):
            pass


@pytest.mark.usefixtures("without_the_extra")
async def test_the_environment_without_the_extra_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with pytest.warns(RuntimeWarning, match="no spans are made"):
        async with Session(VllmLike()):
            assert await expert("a", "a reader")


def test_a_session_without_spans_needs_none_of_the_extra() -> None:
    program = (
        "import sys\n"
        "for name in ('msgspec', 'opentelemetry', 'requests'):\n"
        "    sys.modules[name] = None\n"
        "from helium_agents import llm, operator, run, user\n"
        "from helium_agents.engines.scripted import ScriptedEngine\n"
        "@operator\n"
        "async def ask() -> str:\n"
        "    return (await llm(user('a'))).text\n"
        "print(run(ask, engine=ScriptedEngine({'a': 'b'})))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == ("b\n", 0), ended.stderr
