"""What is encoded straight from records is what the stock encoder makes of the SDK's spans."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from otel_made import Made, VllmLike, answer, attributes

from helium_agents import Session, llm, operator, user
from helium_agents.telemetry.otel.context import Place
from helium_agents.telemetry.otel.limits import Limits
from helium_agents.telemetry.otel.protobuf import Encoder
from helium_agents.telemetry.otel.records import (
    Agent,
    Answer,
    Began,
    Chat,
    Ended,
    Said,
    Sampled,
    Tool,
    Whole,
    Workflow,
    well_formed,
)
from helium_agents.telemetry.otel.spans import Spans
from helium_agents.telemetry.otel.stock import readable

RESOURCE = Resource({"service.name": "tests", "a": ["b", "c"], "d": 1.5, "e": True}, "a schema")


@operator
async def failing(text: str) -> str:
    await llm(user(text), temperature=0.5, top_p=0.9, seed=3, stop=["\n"], max_tokens=9)
    raise ValueError(f"{text} is wrong")


async def of_a_session(monkeypatch: pytest.MonkeyPatch) -> list[Whole]:
    monkeypatch.setenv("TRACEPARENT", Place(bytes(range(16)), 77).traceparent)
    made = Made()
    spans = Spans(made, "run 1", content=True, emit=print)
    async with Session(VllmLike(), observers=[spans]) as session:
        for fn in (answer, failing):
            async with session.map(fn, ["ä", "ä", "b"], on_error="collect") as rows:
                assert len([row async for row in rows]) == 3
    return made.wholes


def of_every_kind() -> Iterator[Whole]:
    """Records of all kinds with every field set, and none."""
    trace = bytes(range(1, 17))
    sampled = Sampled(16, 1, 0.5, 3, 2, 7, ("a", "b"), 0.5, 0.25)
    said = Said((("user", "Hi"),), ("", "there"), ((("look_up", "{}"),), ()))
    reasons = ("stop", "length")
    full = Answer("engine", 1, 2, 3, 0.5, 0.25, 2, 4, True, (trace, 2**64 - 1), reasons, said)
    empty = Answer("memo", 0, 0, 0, None, None, 0, 0, False, None, (), None)
    ends = [(None, None), (("ValueError", ""), None), (("ValueError", "told"), full)]
    ends += [(("", "killed"), None), (None, full), (None, empty)]
    works = [
        Workflow("flow", None, "run"), Workflow("flow", 3, "run"), Agent("flow:f.<locals>.g"),
        Tool("look_up", "call 1"), Chat("model", "vllm", None, "", None),
        Chat("model", "vllm", ("host", 80), "flow:f", sampled),
    ]  # fmt: skip
    for work in works:
        for error, how in ends:
            for parent in (0, 5):
                for is_entry in (False, True):
                    began = Began(2**63, parent, trace, 1, work)
                    yield Whole(began, Ended(2**63, 2**62, error, how), is_entry)


@pytest.mark.parametrize("limits", [Limits(), Limits(None, 3), Limits(6), Limits(0)], ids=str)
async def test_both_encodings_are_the_same(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    wholes = [*await of_a_session(monkeypatch), *of_every_kind()]
    data = Encoder(RESOURCE, limits).request(wholes)
    ours = ExportTraceServiceRequest.FromString(data)
    stock = encode_spans([readable(whole, RESOURCE, limits) for whole in wholes])
    for span in spans_of(stock):
        if not span.status.code:
            span.ClearField("status")  # an empty one says nothing
    for span in spans_of(ours):
        assert limits != Limits() or not span.dropped_attributes_count
        span.dropped_attributes_count = 0  # which a span of the SDK that was made so does not know
    assert ours == stock
    assert len(spans_of(ours)) == len(wholes)


def spans_of(request: Any) -> list[Any]:
    return [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]


def test_what_is_beyond_a_limit_is_counted() -> None:
    (began, end, is_entry) = next(
        whole for whole in of_every_kind() if isinstance(whole.began.work, Chat)
    )
    found = []
    for most in (None, 2):
        data = Encoder(RESOURCE, Limits(most)).request([Whole(began, end, is_entry)])
        found += spans_of(ExportTraceServiceRequest.FromString(data))
    assert len(attributes(found[0])) == 2 + found[1].dropped_attributes_count
    assert len(attributes(found[1])) == 2


def test_what_no_encoding_has_is_replaced() -> None:
    began = Began(1, 0, bytes(16), 1, Tool("look\ud800up", "1"))
    said = Said((("user", "\udfff"),), ("ok",), ((),))
    how = Answer("engine", 0, 0, 0, None, None, 1, 0, False, None, ("stop",), said)
    end = Ended(1, 2, ("ValueError", "\ud800"), how)
    whole = Whole(well_formed(began), well_formed(end), False)
    (span,) = spans_of(
        ExportTraceServiceRequest.FromString(Encoder(RESOURCE, Limits()).request([whole]))
    )
    assert span.name == "execute_tool look?up"
    assert span.status.message == "?"
    assert '"content": "?"' in attributes(span)["gen_ai.input.messages"]
    assert well_formed(end.answer) != end.answer
