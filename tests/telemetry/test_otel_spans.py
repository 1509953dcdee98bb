"""A session's events become the spans and metrics of OpenTelemetry's conventions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from otel_made import Made, VllmLike, answer, content_of, expert

from helium_agents import Budget, MemoryStore, Session, agent_loop, llm, operator, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedReply
from helium_agents.graph.tool_call import ToolCall
from helium_agents.telemetry.otel.context import Place, place_of
from helium_agents.telemetry.otel.sampling import Sampler
from helium_agents.telemetry.otel.spans import Spans


@pytest.fixture
def made() -> Made:
    return Made()


def watched(made: Made, engine: Any = None, *, content: bool = False, **options: Any) -> Session:
    spans = Spans(made, "run 1", content=content, emit=print)
    return Session(engine or VllmLike(), observers=[spans], **options)


async def results(of: Any) -> list[Any]:
    return [each async for each in of]


# --- the tree ------------------------------------------------------------------------------------

EXPERT = ["invoke_agent expert", "chat scripted"]
ROW = ["row answer", ["invoke_agent answer", "chat scripted", EXPERT, EXPERT]]


async def test_a_map_is_a_workflow_of_rows_of_agents_of_calls(made: Made) -> None:
    async with watched(made) as session:
        await results(session.map(answer, ["a", "b"]))
    assert made.tree() == [["invoke_workflow answer", ROW, ROW]]
    assert len({span.context.trace_id for span in made.spans}) == 1


async def test_a_run_is_a_workflow(made: Made) -> None:
    session = await watched(made).open()
    await session.run(expert, "a", "a reader")
    await session.close()
    tree = [["invoke_workflow expert", ["invoke_agent expert", "chat scripted"]]]
    assert made.tree() == tree


async def test_what_is_called_outside_begins_traces_of_its_own(made: Made) -> None:
    async with watched(made):
        await llm(user("Hello"))
        await expert("a", "a reader")
    assert made.tree() == ["chat scripted", ["invoke_agent expert", "chat scripted"]]
    assert len({span.context.trace_id for span in made.spans}) == 2


@operator
async def nested(questions: tuple[str, ...]) -> int:
    async with NESTED[0].map(expert_of, questions) as answers:
        return len([each async for each in answers])


NESTED: list[Session] = []


async def expert_of(question: str) -> str:
    return await expert(question, "a reader")


async def test_a_map_in_an_operator_is_below_it_and_its_rows_below_the_map(made: Made) -> None:
    async with watched(made) as session:
        NESTED[:] = [session]
        await nested(("a",))
    agent = ["invoke_agent expert", "chat scripted"]
    workflow = ["invoke_workflow expert_of", ["row expert_of", agent]]
    assert made.tree() == [["invoke_agent nested", workflow]]


async def test_a_map_in_a_row_adds_no_rows_of_its_own(made: Made) -> None:
    async with watched(made) as session:
        NESTED[:] = [session]
        await results(session.map(nested, [("a",)]))
    agent = ["invoke_agent nested", ["invoke_agent expert", "chat scripted"]]
    assert made.tree() == [["invoke_workflow nested", ["row nested", agent]]]


@operator(pure=True)
async def judge(text: str) -> str:
    return (await llm(user(f"Judge {text}"))).text


async def test_a_pure_operator_has_its_calls_below_it_once(made: Made) -> None:
    async with watched(made) as session:
        await results(session.map(judge, ["a", "a"]))
    computed = ["row judge", ["invoke_agent judge", "chat scripted"]]
    shared = ["row judge", "invoke_agent judge"]
    assert made.tree() == [["invoke_workflow judge", shared, computed]]
    (link,) = [link for span in made.named("invoke_agent") for link in span.links]
    by_id = {span.context.span_id: span for span in made.spans}
    assert by_id[link.context.span_id].attributes["helium.source"] == "body"


async def test_a_break_ends_every_span(made: Made) -> None:
    async with watched(made, Slow()) as session, session.map(answer, ["quick", "b"]) as found:
        await anext(found)
    assert len(made.named("row answer")) == 2
    began = [each.span for each in made.records if hasattr(each, "work")]
    ended = [each.span for each in made.records if hasattr(each, "answer")]
    assert sorted(began) == sorted(ended)


class Slow(VllmLike):
    async def complete(self, request: Request, on_delta: Any = None) -> Any:
        if "b" in request.messages[0].content.split()[-1:]:
            await asyncio.sleep(60)
        return await super().complete(request, on_delta)


# --- what is shared ------------------------------------------------------------------------------


async def test_a_merged_call_links_to_the_one_that_was_computed(made: Made) -> None:
    async with watched(made) as session:
        await results(session.map(expert_of, ["a", "a"]))
    computed, merged = sorted(made.named("chat"), key=lambda span: len(span.links))
    (link,) = merged.links
    assert link.context.span_id == computed.context.span_id
    attributes = merged.attributes
    assert attributes["helium.shared.span_id"] == f"{computed.context.span_id:016x}"
    assert attributes["helium.shared.trace_id"] == f"{computed.context.trace_id:032x}"
    assert computed.attributes["helium.source"] == "engine"
    assert attributes["helium.source"] == "merged"


async def test_remembered_answers_consume_no_tokens(made: Made) -> None:
    store = MemoryStore()
    async with Session(VllmLike(), memo=store):
        await expert("a", "a reader")
    async with watched(made, memo=store):
        await expert("a", "a reader")
    (chat,) = made.named("chat")
    assert chat.attributes["helium.source"] == "memo"
    assert chat.attributes["helium.saved.output_tokens"] > 0
    assert not [name for name in chat.attributes if name.startswith("gen_ai.usage")]
    metrics = made.metrics()
    assert "gen_ai.client.token.usage" not in metrics
    assert "gen_ai.client.operation.duration" not in metrics
    assert sum(point.value for point in metrics["helium.saved.tokens"]) > 0


async def test_computed_tokens_are_those_of_the_summary(made: Made) -> None:
    async with watched(made) as session:
        await results(session.map(answer, ["a", "b", "a"]))
    usage = {
        kind: sum(span.attributes.get(f"gen_ai.usage.{kind}_tokens", 0) for span in made.spans)
        for kind in ("input", "output")
    }
    summary = session.summary
    assert usage == {"input": summary.prompt_tokens, "output": summary.output_tokens}
    counted = {
        point.attributes["gen_ai.token.type"]: point.sum
        for point in made.metrics()["gen_ai.client.token.usage"]
    }
    assert counted == usage
    calls = {p.attributes["helium.source"]: p.value for p in made.metrics()["helium.calls"]}
    assert calls["engine"] == summary.num_computed
    assert sum(calls.values()) == summary.num_calls


# --- attributes ----------------------------------------------------------------------------------


async def test_the_spans_follow_the_conventions(made: Made) -> None:
    checker = pytest.importorskip("pytest_genai_semconv.assertions")

    async with watched(made, tool_caller(), content=True) as session:
        await results(session.map(failing, ["a"], on_error="collect"))
        await ask_with_tools("What is it?")
        await results(session.map(answer, ["a", "a"]))
    checked = set()
    for span in made.spans:
        operation = (span.attributes or {}).get("gen_ai.operation.name")
        if operation is None:
            assert span.name.startswith("row ")
            continue
        checked.add(operation)
        try:
            checker.assert_genai_span_compliant(span)
        except checker.GenAISpanComplianceError as error:
            # the registry lets others than its own be named as best one knows
            assert [each for each in error.violations if "'vllm'" not in each] == []
            assert operation == "chat"
    assert checked == {"chat", "execute_tool", "invoke_agent", "invoke_workflow"}


@operator
async def failing(text: str) -> str:
    raise ValueError(f"{text} is wrong")


async def test_sampling_and_the_answer_are_told(made: Made) -> None:
    async with watched(made):
        await llm(user("Hello"), temperature=0.5, top_p=0.9, seed=3, stop=["\n"], max_tokens=9)
    (span,) = made.spans
    found = {name.removeprefix("gen_ai."): value for name, value in span.attributes.items()}
    assert span.kind is SpanKind.INTERNAL
    assert found["provider.name"] == "vllm"
    assert found["request.model"] == "scripted"
    assert found["request.temperature"] == 0.5
    assert found["request.top_p"] == 0.9
    assert found["request.seed"] == 3
    assert found["request.stop_sequences"] == ("\n",)
    assert found["request.max_tokens"] == 9
    assert found["response.finish_reasons"] == ("stop",)


async def test_a_failure_is_an_error_without_its_text(made: Made) -> None:
    async with watched(made) as session:
        await results(session.map(failing, ["a secret"], on_error="collect"))
    for name in ("row", "invoke_agent"):
        (span,) = made.named(name)
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == "ValueError"
        assert "secret" not in str(span.to_json())


async def test_content_is_told_only_where_that_is_asked_for(made: Made) -> None:
    async with watched(made, VllmLike({"A secret": "Hush"})):
        await llm(user("A secret"))
    assert "secret" not in made.spans[0].to_json()
    assert "Hush" not in made.spans[0].to_json()
    told = Made()
    async with watched(told, VllmLike({"A secret": "Hush"}), content=True):
        await llm(user("A secret"))
    (span,) = told.spans
    (asked,) = content_of(span, "gen_ai.input.messages")
    assert asked == {"role": "user", "parts": [{"type": "text", "content": "A secret"}]}
    (answered,) = content_of(span, "gen_ai.output.messages")
    assert answered["parts"] == [{"type": "text", "content": "Hush"}]
    assert answered["finish_reason"] == "stop"


# --- tools ---------------------------------------------------------------------------------------


async def look_up(name: str) -> str:
    """Look something up."""
    return f"{name}: 7"


def tool_caller() -> VllmLike:
    def reply(request: Request) -> str | ScriptedReply:
        if request.tools and request.messages[-1].role == "user":
            return ScriptedReply("", (ToolCall("look_up", {"name": "it"}),))
        return "Seven."

    return VllmLike(reply)


@operator
async def ask_with_tools(question: str) -> str:
    return (await agent_loop(user(question), tools=[look_up])).text


async def test_a_tool_has_a_span_in_the_operator_that_runs_it(made: Made) -> None:
    async with watched(made, tool_caller()):
        await ask_with_tools("What is it?")
    below = ["chat scripted", "chat scripted", "execute_tool look_up"]
    assert made.tree() == [["invoke_agent ask_with_tools", *below]]
    (tool,) = made.named("execute_tool")
    assert tool.attributes["gen_ai.tool.name"] == "look_up"
    assert tool.attributes["gen_ai.tool.call.id"]


@operator
async def ask_with_a_broken_tool(question: str) -> str:
    def look_up(name: str) -> str:
        """Look something up."""
        raise KeyError(name)

    return (await agent_loop(user(question), tools=[look_up])).text


async def test_a_tool_that_fails_says_so(made: Made) -> None:
    async with watched(made, tool_caller()):
        await ask_with_a_broken_tool("What is it?")
    (tool,) = made.named("execute_tool")
    assert tool.attributes["error.type"] == "KeyError"


# --- whom we are called by, and whom we call -----------------------------------------------------

CALLER = Place(bytes(range(16)), 77)


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("TRACEPARENT", CALLER.traceparent)
    return CALLER


async def test_the_caller_of_the_process_is_the_parent(made: Made, caller: Place) -> None:
    async with watched(made) as session:
        await results(session.map(expert_of, ["a"]))
        await llm(user("Hello"))
        await judge("it")
    roots = [span for span in made.spans if span.parent and span.parent.span_id == caller.span]
    assert {span.name for span in roots} == {
        "invoke_workflow expert_of", "chat scripted", "invoke_agent judge",
    }  # fmt: skip
    trace_id = int.from_bytes(caller.trace, "big")
    assert {span.context.trace_id for span in made.spans} == {trace_id}


async def test_the_span_that_calls_is_the_parent(made: Made) -> None:
    async with watched(made) as session:
        context = SpanContext(5, 6, is_remote=False, trace_flags=TraceFlags(1))
        with trace.use_span(NonRecordingSpan(context)):
            await session.run(expert, "a", "a reader")
            await llm(user("Hello"))
        await llm(user("Goodbye"))
    assert [span.context.trace_id == 5 for span in made.named("chat")] == [True, True, False]


async def test_requests_carry_their_span(made: Made) -> None:
    asked: list[Request] = []

    class Asked(VllmLike):
        async def complete(self, request: Request, on_delta: Any = None) -> Any:
            asked.append(request)
            return await super().complete(request, on_delta)

    async with watched(made, Asked()):
        await expert("a", "a reader")
    (chat,) = made.named("chat")
    (request,) = asked
    assert request.headers is not None
    place = place_of(request.headers["traceparent"])
    assert place == Place(chat.context.trace_id.to_bytes(16, "big"), chat.context.span_id)


async def test_what_the_caller_does_not_record_is_not_recorded(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", Place(CALLER.trace, CALLER.span, False).traceparent)
    async with watched(made) as session:
        await results(session.map(answer, ["a"]))
    assert made.records == []


@pytest.mark.parametrize(
    ("name", "argument", "is_parent_sampled", "takes"),
    [
        ("", "", None, True),
        ("", "", False, False),
        ("always_off", "", True, False),
        ("always_on", "", False, True),
        ("parentbased_always_off", "", None, False),
        ("parentbased_always_off", "", True, True),
        ("traceidratio", "0.25", None, True),
        ("traceidratio", "0.2", None, False),
        ("parentbased_traceidratio", "0.2", True, True),
    ],
)
def test_the_environment_chooses_what_is_recorded(
    name: str, argument: str, is_parent_sampled: bool | None, takes: bool
) -> None:
    sampler = Sampler({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})
    trace_id = bytes(8) + int(0.22 * 2**64).to_bytes(8, "big")
    assert sampler.takes(trace_id, is_parent_sampled) is takes


def test_an_unknown_sampler_is_told() -> None:
    with pytest.warns(RuntimeWarning, match="jaeger_remote"):
        sampler = Sampler({"OTEL_TRACES_SAMPLER": "jaeger_remote"})
    assert sampler.takes(bytes(16), None)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-0-0-01",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"ff-{'1' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-01-more",
    ],
)
def test_what_is_no_traceparent_names_nobody(header: str) -> None:
    assert place_of(header) is None


def test_a_later_version_of_a_traceparent_is_read() -> None:
    assert place_of(f"01-{'1' * 32}-{'1' * 16}-01-more") is not None


# --- speculation ---------------------------------------------------------------------------------


@operator(pure=True)
async def two_steps(question: str) -> str:
    first = await llm(user(question), predict=lambda _: "yes")
    return (await llm(user(f"then {first.text}"))).text


async def test_a_call_that_was_computed_early_says_so(made: Made) -> None:
    asked_early = asyncio.Event()

    async def reply(request: Request) -> str:
        if request.messages[-1].content == "q":
            await asked_early.wait()
            return "yes"
        asked_early.set()
        return "done"

    budget = Budget(max_extra_tokens=1e9, least_probability=0.0)
    async with watched(made, VllmLike(reply), speculate=budget):
        assert await two_steps("q") == "done"
    chats = sorted(made.named("chat"), key=lambda span: span.start_time or 0)
    assert ["helium.speculated" in (span.attributes or {}) for span in chats] == [False, True]
