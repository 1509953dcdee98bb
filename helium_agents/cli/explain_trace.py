"""`helium explain` of a trace: what a run did (`--analyze`), what was chosen for it (`--plan`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from helium_agents.capacity.outcome import measured
from helium_agents.cli import explain_guesses
from helium_agents.cli.options import echo_warning
from helium_agents.cli.report import columns, count, told_if_long
from helium_agents.diagnose.analyze import OperatorRow, by_operator
from helium_agents.diagnose.expectations import Expectation, expectations
from helium_agents.diagnose.guesses import oracle_gap
from helium_agents.diagnose.losses import Loss, losses
from helium_agents.telemetry.progress import duration
from helium_agents.trace import TracedRun, read_trace

_MOST_LOSSES = 3

_NOT_COMPARED: Mapping[str, str] = {
    "all fits": "all rows fit into the KV cache together",
    "rows pause": "rows pause between their calls, so they are parked where that pays",
    "engine unknown": "what an engine holds, or what its steps cost, is not known",
    "unequal engines": "models have different numbers of engines, which is not simulated",
    "one row": "there is no more than one row for each engine",
}
"""Of each word of `NotCompared`, what it says to a person."""


def analyze(path: Path, *, as_json: bool) -> None:
    """Print a traced run by operator, what was chosen for it, and where it lost most.

    Raises:
        TraceError: It cannot be read.
    """
    with told_if_long(f"{path} is long: it is still being read and analyzed ..."):
        run = read_trace(path)
        outcome, rows = measured(run), by_operator(run)
        found = losses(run, outcome.seconds)[:_MOST_LOSSES]
        expected, gap = expectations(run, rows), oracle_gap(run)
        num_again = sum(item.num_parts > 1 for item in run.items.values())
    if as_json:
        report = {
            "trace": str(path),
            "parts": len(run.parts),
            "rows_begun_again": num_again,
            "is_cut": run.is_cut,
            **asdict(outcome),
            "calls_below": sum(call.calls_below for call in run.calls),
            "operators": [asdict(row) for row in rows],
            "expectations": [asdict(each) for each in expected],
            "choices": run.choices,
            "speculation": explain_guesses.as_dict(gap),
            "losses": [asdict(loss) for loss in found],
        }
        click.echo(json.dumps(report))
        return
    parts = "" if len(run.parts) == 1 else f" in {len(run.parts)} parts"
    calls = count(sum(row.num_calls for row in rows), "model call")
    num_below = sum(call.calls_below for call in run.calls)
    if num_below:
        calls += f" ({num_below:,} more never made, since operators' answers were known)"
    items = count(len(run.items), "row")
    num_failed = sum(item.error is not None for item in run.items.values())
    told = [f"{num_failed:,} failed"] if num_failed else []
    if num_again:
        told.append(f"{num_again:,} begun again by a later part, which asked their calls again")
    if told:
        items += f" ({'; '.join(told)})"
    click.echo(f"{path}: {items}, {calls}, {duration(outcome.seconds)}{parts}\n")
    click.echo(_table(rows))
    click.echo(f"\n{expected_table(expected)}{_chosen(run)}")
    if guesses := explain_guesses.in_words(run, gap):
        click.echo(guesses)
    click.echo(_losses(run, found))
    if run.is_cut:
        echo_warning("the trace ends in the middle: its run goes on, or was killed")


def explain_choice(path: Path, *, as_json: bool) -> None:
    """Print what was chosen for a traced run, the others with what was predicted, and why.

    Raises:
        TraceError: It cannot be read.
    """
    run = read_trace(path)
    if as_json:
        click.echo(json.dumps({"trace": str(path), "choices": run.choices}))
        return
    if not run.choices:
        click.echo(f"{path}: {_chosen(run)}")
    for choice in run.choices:
        click.echo(f"after {duration(choice['t'])}: {choice['policy']}")
        why_not = choice.get("why_not_compared")  # older traces do not say it
        click.echo(compared(choice["policy"], choice["gain"], choice["compared"], why_not))


def compared(policy: str, gain: float, others: Iterable[Sequence[Any]], why_not: str | None) -> str:
    """What was predicted of each policy, and why one was chosen, or why none was."""
    lines = [["", "predicted", "times as fast", ""]]
    for name, seconds, its_gain in others:
        mark = "chosen" if name == policy else ""
        lines.append([str(name), duration(seconds), f"{its_gain:.2f}", mark])
    if len(lines) == 1:
        because = f": {_NOT_COMPARED.get(why_not, why_not)}" if why_not else ""
        return f"Nothing was compared{because}."
    why = "no other is predicted to be clearly faster than having all rows open"
    if gain > 1:
        why = f"predicted to be {gain:.2f} times as fast as having all rows open"
    return f"{columns(lines)}\n{policy}: {why}"


def _table(rows: Sequence[OperatorRow]) -> str:
    if not rows:
        return "No model was called."
    heads = [
        "", "calls", "computed", "merged", "known", "failed", "prompt tokens", "cached",
        "could be", "output", "at most", "queued", "on engine",
    ]  # fmt: skip
    lines = [heads]
    for row in rows:
        computed = max(1, row.num_computed)
        lines.append(
            [
                "  " * max(0, len(row.path) - 1) + row.name,
                *(
                    f"{number:,}" if number else ""
                    for number in (
                        row.num_calls, row.num_computed, row.num_merged, row.num_remembered,
                        row.num_failed, row.prompt_tokens,
                    )
                ),
                _share(row.cached_tokens, row.prompt_tokens),
                _share(row.cacheable_tokens, row.prompt_tokens),
                f"{row.output_tokens:,}" if row.output_tokens else "",
                f"{row.most_output_tokens:,}" if row.most_output_tokens else "",
                duration(row.queued_s / computed) if row.num_computed else "",
                duration(row.engine_s / computed) if row.num_computed else "",
            ]
        )  # fmt: skip
    return (
        f"{columns(lines)}\n"
        "cached: of the prompt tokens, by the engine; could be: by one that forgets nothing; "
        "at most:\nby max_tokens; queued and on engine: a call, on average"
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else ""


def _chosen(run: TracedRun) -> str:
    """What the schedule was, and how the last prediction came out."""
    if not run.parts:
        return "schedule: the trace ends before it is told"
    if not run.choices:
        return f"schedule: {run.parts[-1].schedule}; nothing was chosen while it ran"
    choice = run.choices[-1]
    text = f"schedule: {choice['policy']}, chosen after {duration(choice['t'])}"
    if choice["predicted_s"] is None:
        return text
    predicted = duration(choice["predicted_s"])
    return f"{text}; the rows that were looked at were predicted to take {predicted}"


def _losses(run: TracedRun, found: Sequence[Loss]) -> str:
    if not run.computed:
        return "\nNo engine computed anything, so none lost time."
    if not found:
        return "\nNo large loss was found."
    lines = [
        f"{number}. about {duration(loss.seconds)}: {loss.what}.\n   What to do: {loss.advice}."
        for number, loss in enumerate(found, 1)
    ]
    return "\nWhere it lost most:\n" + "\n".join(lines)


def expected_table(found: Sequence[Expectation]) -> str:
    """Each figure as expected and as it came; empty where nothing was expected."""
    if not found:
        return ""
    lines = [["expected → actual", "calls a row", "prompt", "cached", "output", "on engine"]]
    for each in found:
        expected, actual = each.expected, each.actual
        lines.append(
            [
                each.operator,
                _pair(expected.calls_per_row, actual.calls_per_row, "{:.3g}".format),
                _pair(expected.prompt_tokens, actual.prompt_tokens, "{:,.0f}".format),
                _pair(expected.cached_share, actual.cached_share, "{:.0%}".format),
                _pair(expected.output_tokens, actual.output_tokens, "{:,.0f}".format),
                _pair(expected.engine_s, actual.engine_s, duration),
            ]
        )
    return f"{columns(lines)}\nprompt, output: tokens of a computed call, on average\n"


def _pair(expected: float | None, actual: float | None, shown: Callable[[float], str]) -> str:
    return " → ".join("?" if each is None else shown(each) for each in (expected, actual))
