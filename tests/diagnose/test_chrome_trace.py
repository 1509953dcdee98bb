"""The events of a traced run are such as the viewers of Chrome traces take them."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helium_agents.diagnose.chrome_trace import chrome_trace_events
from helium_agents.diagnose.spans import rows_as_spans
from helium_agents.optimizer.step_window import StepWindow
from helium_agents.trace import TracedRun, read_trace
from helium_agents.trace.run import TracedMoment, TracedTool
from tests.trace.made import call, made_run

DEBATE = Path(__file__).parents[2] / "docs/debate.trace"


def events_of(run: TracedRun, phase: str) -> list[dict[str, Any]]:
    return [event for event in chrome_trace_events(run) if event["ph"] == phase]


def agents() -> TracedRun:
    """Two rows side by side: an agent asks two experts, which a tool follows; one is merged."""
    run = made_run(
        call(2, 0, 3, body=1, prompt=[1] * 40, cached_tokens=32),
        call(3, 0, 2, body=1, prompt=[2] * 40),
        call(4, 3, 5, body=1, inputs=(2, 3), prompt=[1] * 80),
        call(12, 0, 3, body=11, item=1, source="merged", leader=2),
        call(13, 1, 2, body=11, item=1, source="memo"),
        call(14, 0, 1, item=None, prompt=[3] * 40),
        bodies=[(1, "flow:agent", 0), (11, "flow:agent", 0)],
    )
    run.tools = [TracedTool("search", 1, 0, 5.0, 6.0, None, '{"page":"\ud800"}')]
    run.items[0].ended_s = 6.0
    return run


@pytest.mark.parametrize("run", [agents(), read_trace(DEBATE)], ids=["agents", "debate"])
def test_spans_of_a_thread_nest(run: TracedRun) -> None:
    """Viewers drop or distort spans that overlap otherwise."""
    threads: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in events_of(run, "X"):
        start = round(event["ts"] * 1000)
        end = start + round(event["dur"] * 1000)
        threads[event["pid"], event["tid"]].append((start, end))
    for spans in threads.values():
        open_: list[tuple[int, int]] = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_ and open_[-1][1] <= start:
                open_.pop()
            assert not open_ or end <= open_[-1][1]
            open_.append((start, end))


@pytest.mark.parametrize("run", [agents(), read_trace(DEBATE)], ids=["agents", "debate"])
def test_every_call_and_request_is_there_and_named(run: TracedRun) -> None:
    slices = events_of(run, "X")
    calls = [each["args"]["call"] for each in slices if each["cat"] not in ("request", "phase")
             and "call" in each.get("args", {})]  # fmt: skip
    assert sorted(calls) == sorted(call.number for call in run.calls)
    requests = [each for each in slices if each["cat"] == "request"]
    assert len(requests) == len(run.computed)
    assert sum(each["cat"] == "phase" for each in slices) == 2 * len(requests)
    named = {(each["pid"], each.get("tid")) for each in events_of(run, "M")}
    assert {(each["pid"], each["tid"]) for each in slices} <= named
    names = {each["args"]["name"] for each in events_of(run, "M") if "name" in each["args"]}
    assert {"rows", "row 1", "slot 1"} <= names


def test_what_is_in_a_body_is_inside_of_it() -> None:
    first, second, rest = rows_as_spans(agents())
    row, agent, *inner = sorted(first, key=lambda span: (span.start_s, -span.end_s))
    assert row.name == "row 1" and row.around is None
    assert agent.name == "agent" and agent.around is row
    assert (agent.start_s, agent.end_s) == (0, 6)
    assert {span.name for span in inner} == {"llm", "tool search"}
    assert all(span.around is agent for span in inner)
    assert [span.lane for span in inner] == [0, 1, 0, 0], "two calls stand side by side"
    assert inner[2].start_s == 3
    assert {span.name for span in second} == {"row 2", "agent", "llm"}
    assert [span.name for span in rest] == ["outside of rows", "llm"]


def test_lanes_are_used_again_and_many_calls_at_once_are_no_trouble() -> None:
    run = made_run(call(1, 0, 2), call(2, 1, 3), call(3, 2, 4), call(4, 3, 5))
    ((row, *calls),) = rows_as_spans(run)
    assert row.lane == 0 and [span.lane for span in calls] == [0, 1, 0, 1]
    many = made_run(*(call(number, 0, number, item=None) for number in range(1, 5_001)))
    (spans,) = rows_as_spans(many)
    assert len({span.lane for span in spans}) == 5_000


def test_a_call_begins_when_its_inputs_are_there() -> None:
    run = made_run(call(1, 0, 2), call(2, 0, 3, inputs=(1,)))
    ((_, _, later),) = rows_as_spans(run)
    assert (later.start_s, later.end_s) == (2, 3)


def test_a_pure_operator_is_its_own_call() -> None:
    own = replace(call(1, 0, 4, kind="operator", source="body"), label="expert")
    ((row, operator, model),) = rows_as_spans(
        made_run(own, call(2, 1, 3, body=1), bodies=[(1, "flow:expert", 0)])
    )
    assert operator.what is own and operator.around is row and model.around is operator


def test_arrows_lead_from_leaders_and_to_requests() -> None:
    run = agents()
    starts, ends = events_of(run, "s"), events_of(run, "f")
    assert [each["id"] for each in starts] == [each["id"] for each in ends]
    assert all(each["bp"] == "e" for each in ends)
    slices = events_of(run, "X")

    def calls_at(event: dict[str, Any]) -> set[int]:
        """The calls whose slices an arrow may begin or end at."""
        return {
            each["args"]["call"]
            for each in slices
            if (each["pid"], each["tid"]) == (event["pid"], event["tid"])
            and each["ts"] <= event["ts"] <= each["ts"] + each["dur"]
            and "call" in each.get("args", {})
        }

    found = {(*calls_at(start), *calls_at(end)) for start, end in zip(starts, ends, strict=True)}
    assert found == {(2, 2), (3, 3), (4, 4), (14, 14), (2, 12)}


def test_counters_tell_the_load() -> None:
    found = events_of(agents(), "C")
    running = [(each["ts"], each["args"]["value"]) for each in found
               if each["name"] == "requests running (worked out)"]  # fmt: skip
    assert running == [(0, 3), (1e6, 2), (2e6, 1), (3e6, 1), (5e6, 0)]
    kv = [
        each["args"]["value"] for each in found if each["name"] == "KV tokens in use (worked out)"
    ]
    assert max(kv) >= 120 and kv[-1] == 0


def test_counters_are_the_engine_s_own_where_it_told_them() -> None:
    run = agents()
    run.steps["tiny", "tiny"] = [StepWindow(0.0, 2.0, 3, 1, 0.5, 100, 10)]
    found = {(each["name"], each["ts"]): each["args"]["value"] for each in events_of(run, "C")}
    assert found["requests running (measured)", 0] == 3
    assert found["requests waiting in the engine (measured)", 0] == 1
    assert found["KV tokens in use (measured)", 0] == 1024
    assert found["prompt tokens/s (measured)", 0] == 50
    assert found["answer tokens/s (measured)", 2e6] == 0
    assert not any("worked out" in name for name, _ in found)


def test_what_was_computed_early_is_marked() -> None:
    early = replace(call(2, 3, 4), sent_s=0.5, begun_s=0.5, first_token_s=1.0)
    run = made_run(call(1, 0, 3), early)
    guess = {"label": "llm", "source": "predict", "probability": 0.9, "wasted_tokens": 0}
    run.speculated = [
        {**guess, "is_used": True, "saved_s": 2.5, "call": 2},
        {**guess, "is_used": False, "saved_s": 0.0, "call": 0},
    ]
    slices = [each for each in events_of(run, "X") if each.get("args", {}).get("call") == 2]
    assert {each["cat"] for each in slices} == {"engine,early", "request,early"}
    assert all(
        each["args"]["computed early"] == "for 2.5 s before it was asked, as guessed by predict="
        for each in slices
    )
    (start,) = (each for each in events_of(run, "s") if each["name"] == "early")
    (end,) = (each for each in events_of(run, "f") if each["name"] == "early")
    assert start["pid"] != 1 and end["pid"] == 1, "from its request to the call"
    assert start["ts"] == 0.75e6 and end["ts"] == 3.5e6


def test_it_is_json_whatever_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    run = agents()
    answer = run.calls[0].answer
    assert answer is not None
    odd = replace(answer, messages=(("user", "\ud800</script>"),), texts=("x" * 9_999,))
    run.calls[0] = replace(run.calls[0], answer=odd)
    text = json.dumps(list(chrome_trace_events(run)))
    assert "\\ud8" not in text and "x" * 9_999 not in text and "x ..." in text
    json.loads(text)


def test_what_happened_to_the_run_is_marked() -> None:
    run = agents()
    run.moments = [TracedMoment("engine lost", 2.0, "tiny", "killed", num_open=2)]
    run.choices = [{"policy": "2 rows open", "gain": 1.4, "t": 0.5}]
    run.parts.append(replace(run.parts[0], start_s=4.0))
    marks = {each["name"]: each["ts"] for each in events_of(run, "i")}
    assert marks == {
        "engine lost: tiny": 2e6, "schedule: 2 rows open": 5e5, "the run goes on": 4e6,
    }  # fmt: skip


def test_nothing_is_a_trace_too() -> None:
    assert {each["ph"] for each in chrome_trace_events(made_run())} <= {"M"}


def test_operators_may_be_nested_deeply() -> None:
    depth = 5_000
    bodies = [(number, "flow:agent", number - 1) for number in range(1, depth + 1)]
    (spans,) = rows_as_spans(made_run(call(depth + 1, 0, 1, body=depth), bodies=bodies))
    assert len(spans) == depth + 2 and {span.lane for span in spans} == {0}
