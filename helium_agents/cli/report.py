"""What commands say at their end: what was asked, what was computed, what was saved."""

from __future__ import annotations

from collections.abc import Iterable

from helium_agents.cli.options import echo_warning
from helium_agents.cli.trace import Traced
from helium_agents.telemetry.progress import duration
from helium_agents.telemetry.summary import Summary

MEANINGLESS = "The embedded model is random, so its text means nothing: choose one with --model."


def savings(summary: Summary, *, has_memo: bool, seconds: float) -> str:
    """The counts of a session as a few lines for a person.

    Args:
        summary: The counts.
        has_memo: Whether a persistent memo was used; tells what "remembered" means.
        seconds: How long the whole took.
    """
    return table(
        [
            ("asked", f"{count(summary.num_calls, 'model call')}{_operator_calls(summary)}"),
            *_computed(summary),
            *_saved(summary, has_memo),
            ("time", f"{duration(seconds)}, {_engine(summary)}"),
        ]
    )


def table(lines: Iterable[tuple[str, str]]) -> str:
    """Lines of a name and a text, the texts below one another."""
    lines = list(lines)
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in lines)


def count(number: int, noun: str) -> str:
    """A number of things: ``1 row``, ``1,200 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def echo_failures(traced: Traced) -> None:
    """Warn on stderr of rows whose trace failed."""
    for index, message in traced.failures.items():
        text = f"row {index} failed on placeholder answers, which may be to blame: {message}"
        echo_warning(text)


def _operator_calls(summary: Summary) -> str:
    num_calls = sum(summary.operators_by_source.values())
    if not num_calls:
        return ""
    num_run = summary.operators_by_source["body"]
    return f", {count(num_calls, 'pure operator call')} ({num_run:,} run)"


def _computed(summary: Summary) -> list[tuple[str, str]]:
    if not summary.num_computed:
        return [("computed", "nothing")]
    cached = f"{summary.prefix_hit_rate:.0%} of them from the prefix cache"
    return [
        ("computed", count(summary.num_computed, "model call")),
        ("", f"{summary.prompt_tokens:,} prompt tokens, {cached}"),
        ("", f"{summary.output_tokens:,} output tokens"),
    ]


def _saved(summary: Summary, has_memo: bool) -> list[tuple[str, str]]:
    num_saved = summary.num_calls - summary.num_computed
    if not num_saved:
        return [("saved", "no model call")]
    counts = summary.as_dict()
    how = (
        ("merged", "merged with an equal call"),
        ("memo_hits", "from the memo" if has_memo else "answered before in this run"),
        ("prefix_answers", "cut from a longer answer"),
    )
    parts = ", ".join(f"{counts[name]:,} {text}" for name, text in how if counts[name])
    tokens = f"{summary.saved_prompt_tokens:,} prompt and {summary.saved_output_tokens:,} output"
    return [
        ("saved", f"{count(num_saved, 'model call')}: {parts}"),
        ("", f"{tokens} tokens not computed"),
    ]


def _engine(summary: Summary) -> str:
    if summary.engine_start_s:
        return f"of which {duration(summary.engine_start_s)} to start the engine"
    if summary.num_computed:
        return "with an engine that was running"
    return "no engine was started"
