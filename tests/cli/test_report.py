"""What the end of a run says of what was asked, computed and saved."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from helium_agents.cli.report import savings
from helium_agents.telemetry.events import CallSettled, Event, Source, Speculated, Usage
from helium_agents.telemetry.summary import Summary


def settled(source: Source, kind: Literal["llm", "operator"] = "llm", **fields: Any) -> Event:
    is_model = kind == "llm"
    return CallSettled(
        kind=kind,
        label=kind,
        source=source,
        usage=Usage(0.0, prompt_tokens=100 * is_model, output_tokens=20 * is_model),
        error=fields.get("error"),
        calls_below=fields.get("calls_below", 0),
    )


def summary_of(*events: Event) -> Summary:
    summary = Summary()
    for event in events:
        summary(event)
    return summary


def report_of(*events: Event, has_memo: bool = True) -> str:
    return savings(summary_of(*events), has_memo=has_memo, seconds=1.0)


def test_calls_below_a_pure_call_that_did_not_run_are_saved() -> None:
    events = [
        *[settled("engine")] * 30,
        *[settled("body", "operator")] * 2,
        *[settled("merged", "operator", calls_below=5)] * 2,
    ]
    summary = summary_of(*events)
    assert (summary.num_calls, summary.num_plain_calls, summary.num_saved) == (30, 40, 10)
    text = report_of(*events)
    assert "asked     40 model calls in the plain program, 30 here, 4 pure operator calls" in text
    assert "computed  30 model calls" in text
    assert "saved     10 model calls: 10 that only led up to an answer that was there" in text
    assert "tokens not computed" not in text, "of calls that were never made none are known"
    more = report_of(*events, settled("merged"))
    assert "at least 100 prompt and 20 output tokens not computed" in more


def test_what_was_answered_earlier_in_the_run_is_not_from_the_memo() -> None:
    counts = summary_of(settled("earlier"), settled("earlier", "operator"), settled("memo"))
    assert counts.as_dict()["memo_hits"] == counts.as_dict()["earlier_hits"] == 1
    assert counts.as_dict()["operator_memo_hits"] == 0
    assert counts.as_dict()["operator_earlier_hits"] == 1
    text = report_of(settled("engine"), settled("earlier"), settled("earlier"))
    assert "saved     2 model calls: 2 answered earlier in this run" in text
    assert "memo" not in text


@pytest.mark.parametrize(
    ("has_memo", "where"),
    [(True, "1 from the memo"), (False, "1 answered before the run was resumed")],
)
def test_what_was_known_before_came_from_the_memo_or_the_run_log(
    has_memo: bool, where: str
) -> None:
    assert where in report_of(settled("memo"), has_memo=has_memo)


def test_a_failed_call_is_not_saved() -> None:
    text = report_of(settled("engine"), settled("engine", error=ValueError()))
    assert "asked     2 model calls\n" in text
    assert "failed    1 model call" in text
    assert "saved     no model call" in text


def test_what_was_computed_early_is_told_where_there_was_any() -> None:
    used = Speculated("llm", "predict", 0.7, True, 2.0, 0, 7)
    wasted = Speculated("llm", "histogram", 0.6, False, 0.0, 310)
    assert "speculation" not in report_of(settled("engine"))
    text = report_of(used, used, wasted)
    assert (
        "2 calls computed early, for 4.0 s before they were asked; 1 for nothing (310 tokens)"
        in text
    )
