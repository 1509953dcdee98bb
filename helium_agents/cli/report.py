"""What commands say to a person: that work goes on, and what was asked, computed and saved."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import click

from helium_agents.telemetry.progress import duration
from helium_agents.telemetry.summary import Summary

MEANINGLESS = "The model's weights are random, so its text means nothing."


def savings(summary: Summary, *, has_memo: bool, seconds: float) -> str:
    """The counts of a session as a few lines for a person.

    Args:
        summary: The counts.
        has_memo: Whether a memo was used; without one, what was known before the session is the
            log of a run that is resumed.
        seconds: How long the whole took.
    """
    engine = "no engine was started"
    if summary.engine_start_s:
        engine = f"of which {duration(summary.engine_start_s)} to start the engine"
    elif summary.num_computed:
        engine = "with an engine that was running"
    return table(
        [
            ("asked", _asked(summary)),
            *_computed(summary),
            *_saved(summary, has_memo),
            *_schedule(summary),
            *_speculation(summary),
            ("time", f"{duration(seconds)}, {engine}"),
        ]
    )


_SOURCES = {
    "declared calls": "the calls that rows declare",
    "profile": "what rows asked before",
    "declared calls and profile": "the calls that rows declare and the answers of earlier ones",
}


def _schedule(summary: Summary) -> list[tuple[str, str]]:
    lines = [("profile", f"did not fit: {reason}") for reason in summary.misfits]
    if summary.predicted_gain > 1.0:
        gain = f"predicted to be {summary.predicted_gain:.2f} times as fast as everything open"
        lines.append(
            ("schedule", f"{summary.policy}, {gain}, from {_SOURCES[summary.policy_source]}")
        )
    return lines


def _speculation(summary: Summary) -> list[tuple[str, str]]:
    if not summary.num_early + summary.num_given_up:
        return []
    early_s = duration(summary.early_s)
    used = (
        f"{count(summary.num_early, 'call')} computed early, for {early_s} before they were asked"
    )
    wasted = f"{summary.num_given_up:,} for nothing ({count(summary.wasted_tokens, 'token')})"
    return [("speculation", f"{used}; {wasted}")]


def table(lines: Iterable[tuple[str, str]]) -> str:
    """Lines of a name and a text, the texts below one another."""
    lines = list(lines)
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in lines)


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, each as wide as its column: the first ones to the left, others to the right.

    A line may have fewer cells than the others.
    """
    num_columns = max(map(len, lines))
    widths = [max(len(line[i]) for line in lines if len(line) > i) for i in range(num_columns)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=False))
        ).rstrip()
        for line in lines
    )


def count(number: int, noun: str) -> str:
    """A number of things: ``1 row``, ``1,200 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _asked(summary: Summary) -> str:
    asked = count(summary.num_plain_calls, "model call")
    if summary.num_calls_below:
        asked += f" in the plain program, {summary.num_calls:,} here"
    num_calls = sum(summary.operators_by_source.values())
    if not num_calls:
        return asked
    num_run = summary.operators_by_source["body"]
    return f"{asked}, {count(num_calls, 'pure operator call')} ({num_run:,} run)"


def _computed(summary: Summary) -> list[tuple[str, str]]:
    if summary.num_computed:
        cached = f"{summary.prefix_hit_rate:.0%} of them from the prefix cache"
        lines = [
            ("computed", count(summary.num_computed, "model call")),
            ("", f"{summary.prompt_tokens:,} prompt tokens, {cached}"),
            ("", f"{summary.output_tokens:,} output tokens"),
        ]
    else:
        lines = [("computed", "nothing")]
    for name, number in (
        ("failed", summary.num_failed_calls),
        ("cancelled", summary.num_cancelled_calls),
    ):
        if number:
            lines.append((name, count(number, "model call")))
    return lines


def _saved(summary: Summary, has_memo: bool) -> list[tuple[str, str]]:
    if not summary.num_saved:
        return [("saved", "no model call")]
    counts = summary.as_dict()
    how = (
        ("merged", "merged with an equal call"),
        ("memo_hits", "from the memo" if has_memo else "answered before the run was resumed"),
        ("earlier_hits", "answered earlier in this run"),
        ("prefix_answers", "cut from a longer answer"),
        ("calls_below", "that only led up to an answer that was there"),
    )
    parts = ", ".join(f"{counts[name]:,} {text}" for name, text in how if counts[name])
    lines = [("saved", f"{count(summary.num_saved, 'model call')}: {parts}")]
    prompt_tokens, output_tokens = summary.saved_prompt_tokens, summary.saved_output_tokens
    if prompt_tokens or output_tokens:
        least = "at least " if summary.num_calls_below else ""  # theirs are not known
        tokens = f"{prompt_tokens:,} prompt and {output_tokens:,} output tokens"
        lines.append(("", f"{least}{tokens} not computed"))
    return lines


_PATIENCE_S = 2.0


@contextmanager
def told_if_long(message: str) -> Iterator[None]:
    """Say so on stderr if the block takes longer than two seconds."""
    timer = threading.Timer(_PATIENCE_S, click.echo, [message], {"err": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
