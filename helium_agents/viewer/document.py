"""A run as the page's JSON: what is counted of it whole, and the shown calls in columns."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from helium_agents.diagnose.analyze import Paths
from helium_agents.trace.run import TracedRun
from helium_agents.viewer.analysis import Analysis, rows_of
from helium_agents.viewer.columns import (
    Numbered,
    call_columns,
    item_columns,
    state_of,
    tool_rows,
)
from helium_agents.viewer.prefix_rows import late_parts, prefix_rows


def document_of(analysis: Analysis, name: str, *, is_running: bool = False) -> dict[str, Any]:
    """What the page shows of a run, without prompts and answers.

    Args:
        analysis: What is known of it.
        name: What a person calls it.
        is_running: Whether it goes on.
    """
    run, names = analysis.run, Numbered[str]()
    calls, waited = call_columns(analysis, names)
    bounds = analysis.bounds
    found = {
        "name": name,
        "is_running": is_running,
        "is_cut": run.is_cut,
        "parts": [asdict(part) for part in run.parts],
        "engines": [asdict(engine) for engine in run.engines.values()],
        "choices": run.choices,
        "is_part": analysis.shown is not run,
        "num_calls": sum(_counts(run).values()),
        "counts": _counts(run),
        "num_below": sum(call.calls_below for call in run.calls),
        "moments": [asdict(moment) for moment in run.moments],
        "tools": tool_rows(run, analysis.shown.calls),
        "num_rows": run.num_rows,
        "num_items": len(run.items),
        "num_ended_items": sum(item.closed_s is not None for item in run.items.values()),
        "num_failed_items": sum(item.error is not None for item in run.items.values()),
        "num_shown_items": rows_of(analysis.shown.calls),
        "outcome": asdict(analysis.outcome),
        "bounds": None if bounds is None else asdict(bounds),
        "tokens": _tokens(analysis),
        "operators": [asdict(row) for row in analysis.operators],
        "operator_waits": _operator_waits(analysis),
        "losses": [asdict(loss) for loss in analysis.losses],
        "late": late_parts(analysis.shown, analysis.losses),
        "load": asdict(analysis.load),
        "measured": _measured(analysis),
        "prefixes": [prefix_rows(tree) for tree in analysis.trees],
        "items": item_columns(analysis.shown),
        "calls": calls,
        "waited": waited,
    }
    return {**found, "names": names.every}


def _measured(analysis: Analysis) -> dict[str, Any] | None:
    """What the engines measured, and with it what the session held back at the same times."""
    load, measured = analysis.load, analysis.measured
    if measured is None:
        return None
    times = sorted({*load.times, *measured.times})
    of_load, of_measured = _last_before(times, load.times), _last_before(times, measured.times)

    def at(places: list[int], values: Sequence[float]) -> list[float]:
        return [values[place] if place >= 0 else 0 for place in places]

    return {
        "times": times,
        "running": at(of_measured, measured.running),
        "waiting": at(of_measured, measured.waiting),
        "held_back": at(of_load, load.waiting),
        "kv_tokens": at(of_measured, measured.kv_tokens) if measured.kv_tokens else [],
        "prefill_rate": at(of_measured, measured.prefill_rate),
        "decode_rate": at(of_measured, measured.decode_rate),
    }


def _last_before(times: Sequence[float], of: Sequence[float]) -> list[int]:
    """For each time the place of the last of others that is not after it; -1 where none is."""
    return [bisect_right(of, time_s) - 1 for time_s in times]


def _counts(run: TracedRun) -> dict[str, int]:
    """The model calls of the whole run, by how they came out."""
    found: dict[str, int] = {}
    for call in run.calls:
        if call.kind == "llm":
            state = state_of(call)
            found[state] = found.get(state, 0) + 1
    return found


def _tokens(analysis: Analysis) -> dict[str, int]:
    """Of the prompts of the shown computed calls: all, hit, lost; and of their answers."""
    calls = analysis.shown.computed
    cached = sum(call.cached_tokens for call in calls)
    could = sum(analysis.cacheable.get(call.number, call.cached_tokens) for call in calls)
    return {
        "prompt": sum(call.prompt_tokens for call in calls),
        "hit": cached,
        "lost": could - cached,
        "output": sum(call.output_tokens for call in calls),
    }


def _operator_waits(analysis: Analysis) -> list[tuple[int, int, int]]:
    """Of operators, as numbers in `operators`: whose answers whose calls waited for, how often."""
    paths = Paths(analysis.shown)
    places = {row.path: place for place, row in enumerate(analysis.operators)}
    by_number = analysis.shown.by_number
    found: dict[tuple[int, int], int] = {}
    for number, waited in analysis.waits.items():
        to = places.get(paths.of(by_number[number].body))
        for each in waited:
            start = places.get(paths.of(by_number[each].body))
            if to is not None and start is not None:
                found[start, to] = found.get((start, to), 0) + 1
    return [(start, to, number) for (start, to), number in sorted(found.items())]
