"""Results as Markdown: sentences, and tables that a terminal shows as well.

Times of other systems are divided by ours, pair by pair, with a 95% interval of the median.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.groups import OURS, Group, Row, groups
from benchmarks.harness.prediction_tables import prediction_tables
from benchmarks.harness.records import Record
from benchmarks.harness.tables import by_system, known, of_systems, seconds
from benchmarks.harness.verdicts import ratio_text, row_ratio_text, sentences

START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"


def summary(records: Sequence[Record]) -> str:
    """What was measured on, who wins where, times ÷ ours, and the bounds.

    Raises:
        ValueError: There are no records, or two of the same.
    """
    if not records:
        raise ValueError("there are no records to report")
    parts = [_conditions(records), "\n".join(sentences(records))]
    for group in groups(records):
        parts += [
            f"### {_heading(group)}",
            *_ratio_tables(group),
            *_bound_tables(group),
            *prediction_tables(group),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def report(records: Sequence[Record]) -> str:
    """The summary, and then what each system computed, how fast, and at what cost."""
    parts = [summary(records).rstrip("\n")]
    for group in groups(records):
        parts += [
            f"### {_heading(group)}: details",
            *_physical_tables(group),
            *_hit_tables(group),
            _token_table(group),
            _cost_table(group),
        ]
    return "\n\n".join(parts) + "\n"


def _heading(group: Group) -> str:
    return group.title[0].upper() + group.title[1:]


def replace_section(path: Path, text: str) -> None:
    """Put text between the two markers of a file, whole or not at all.

    Args:
        path: A text file that has `START` and `END`, each once, on lines of their own.
        text: Markdown.

    Raises:
        ValueError: The markers are not there, or not once each in this order.
    """
    target = path.resolve()  # of a link, or the link would be replaced
    lines = target.read_bytes().decode().splitlines(keepends=True)
    starts, ends = ([i for i, line in enumerate(lines) if line.strip() == m] for m in (START, END))
    if len(starts) != 1 or len(ends) != 1 or starts > ends:
        raise ValueError(
            f"{path} must have the line {START} once, and the line {END} once below it: results "
            "are put between them"
        )
    head, tail = "".join(lines[: starts[0] + 1]), "".join(lines[ends[0] :])
    unfinished = target.with_name(f".{target.name}.part")
    unfinished.write_bytes(f"{head}\n{text.strip()}\n\n{tail}".encode())
    shutil.copymode(target, unfinished)
    os.replace(unfinished, target)


def _conditions(records: Sequence[Record]) -> str:
    """The machine, the model, and how large the cache was in which setting."""
    caches: dict[tuple[str, str, str], dict[str, int]] = {}
    for record in records:
        caches.setdefault(record.engine, {})[record.setting] = record.kv_tokens
    parts = []
    for (device, model, scale), tokens in caches.items():
        cache = "; ".join(f"{setting} {count:,} tokens" for setting, count in tokens.items())
        engine = ", ".join(filter(None, (model, scale)))
        lines = {"Machine": device, "Model": engine, "KV cache": cache}
        parts.append("\n".join(f"{name}: {text}." for name, text in lines.items() if text))
    return "\n\n".join(parts)


def _ratio_tables(group: Group) -> list[str]:
    if all(record.ratio is None for record in group.records.values()):
        return []
    ablations = [system for system in group.systems if system.startswith(f"{OURS}-")]
    others = [system for system in group.systems if system != OURS and system not in ablations]
    fixed = [("ours, s", lambda record: seconds(record) if record.system == OURS else "")]
    title = "Time ÷ ours (above 1: ours is faster), median and 95% interval of the pairs"
    return [
        *by_system(group, title, others, ratio_text, fixed),
        *by_system(group, "Ours without one part, time ÷ ours", ablations, ratio_text, fixed),
        *_row_tables(group, others),
    ]


def _row_tables(group: Group, others: Sequence[str]) -> list[str]:
    """How long a row took from its arrival, where systems said when rows ended."""
    timed = replace(group, rows=[row for row in group.rows if _is_timed(group, row)])
    fixed = [
        ("ours, s", lambda record: known(record.row_mean_s, "{:.2f}".format)),
        ("p95, s", lambda record: known(record.row_p95_s, "{:.2f}".format)),
    ]
    title = "Mean time of a row from its arrival, time ÷ ours"
    return by_system(timed, title, others if timed.rows else [], row_ratio_text, fixed)


def _is_timed(group: Group, row: Row) -> bool:
    record = group.records.get((row, OURS))
    return record is not None and record.row_ratio is not None


def _bound_tables(group: Group) -> list[str]:
    fixed = [
        ("physical, s", lambda record: f"{record.physical_s:.2f}"),
        ("attainable, s", lambda record: f"{record.attainable_s:.2f}"),
    ]
    title = "Attainable bound ÷ time (1: cannot be faster)"
    return by_system(
        group,
        title,
        group.systems,
        lambda record: f"{record.attainable_s / record.median_s:.2f}",
        fixed,
    )


def _physical_tables(group: Group) -> list[str]:
    return by_system(
        group,
        "Physical bound ÷ time",
        group.systems,
        lambda record: f"{record.physical_s / record.median_s:.2f}",
    )


def _hit_tables(group: Group) -> list[str]:
    return by_system(
        group,
        "Prefix hit rate: cached ÷ sent prompt tokens, %",
        group.systems,
        lambda record: f"{100 * record.hit_rate:.1f}",
    )


def _token_table(group: Group) -> str:
    return of_systems(
        group,
        "Calls, and tokens in thousands: asked = never sent + cached + to prefill; preemptions "
        "make the engine prefill more",
        [
            ("calls", lambda record: f"{record.num_calls:,}"),
            ("sent", lambda record: f"{record.num_sent:,}"),
            ("asked", lambda record: _thousands(record.prompt_tokens)),
            ("never sent", lambda record: _thousands(record.never_sent_tokens)),
            ("cached", lambda record: _thousands(record.cached_tokens)),
            ("to prefill", lambda record: _thousands(record.to_prefill_tokens)),
            ("prefilled", lambda record: known(record.scheduled_prefill_tokens, _thousands)),
            ("output", lambda record: _thousands(record.output_tokens)),
        ],
    )


def _cost_table(group: Group) -> str:
    return of_systems(
        group,
        "Time in s, steps, requests a step, preemptions, latency, planning and client CPU in s, "
        "memory in MB",
        [
            ("time", seconds),
            ("steps", lambda record: known(record.steps, "{:,}".format)),
            ("batch", lambda record: f"{_batch(record):.1f}"),
            ("preempted", lambda record: known(record.preemptions, "{:,}".format)),
            ("p50", lambda record: f"{record.latency_p50_s:.2f}"),
            ("p95", lambda record: f"{record.latency_p95_s:.2f}"),
            ("planning", lambda record: f"{record.planning_s:.3f}"),
            ("CPU", lambda record: f"{record.client_cpu_s:.2f}"),
            ("MB", lambda record: f"{record.memory_mb:.0f}"),
            ("note", lambda record: record.note),
        ],
    )


def _batch(record: Record) -> float:
    """Requests a step; without steps what a gauge showed, which looks too rarely."""
    return record.mean_running if record.mean_batch is None else record.mean_batch


def _thousands(tokens: float) -> str:
    return f"{tokens / 1000:,.1f}"
