"""Results as Markdown: sentences, and tables that a terminal shows as well.

Times of other systems are divided by ours, pair by pair, with a 95% interval of the median.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness.groups import OURS, Group, groups
from benchmarks.harness.records import Record
from benchmarks.harness.verdicts import ratio_text, sentences

START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"
MAX_WIDTH = 100


def summary(records: Sequence[Record]) -> str:
    """What was measured on, who wins where, times ÷ ours, and the bounds.

    Raises:
        ValueError: There are no records, or two of the same.
    """
    if not records:
        raise ValueError("there are no records to report")
    parts = [_conditions(records), "\n".join(sentences(records))]
    for group in groups(records):
        parts += [f"### {_heading(group)}", *_ratio_tables(group), *_bound_tables(group)]
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


# --- tables ----------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]], num_names: int = 1) -> str:
    """A Markdown table whose columns are aligned in plain text too.

    Args:
        header: Of each column.
        rows: Cells.
        num_names: So many first columns are text, to the left; the others are numbers.
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if index < num_names else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(aligned)} |"

    rule = [
        "-" * width if index < num_names else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    return "\n".join(map(line, (header, rule, *rows)))


def _wide_tables(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], num_fixed: int
) -> list[str]:
    """Tables of at most `MAX_WIDTH` characters that all begin with the same columns."""
    widths = [max(3, *map(len, column)) + 3 for column in zip(header, *rows, strict=True)]
    fixed_width = sum(widths[:num_fixed]) + 1
    parts: list[list[int]] = [[]]
    for index in range(num_fixed, len(header)):
        if parts[-1] and fixed_width + sum(widths[i] for i in (*parts[-1], index)) > MAX_WIDTH:
            parts.append([])
        parts[-1].append(index)
    texts = []
    for part in parts:
        chosen = [*range(num_fixed), *part]
        cells = [[row[index] for index in chosen] for row in rows]
        texts.append(table([header[index] for index in chosen], cells))
    return [f"**{title}**", *texts]


def _by_system(
    group: Group,
    title: str,
    systems: Sequence[str],
    cell: Callable[[Record], str],
    fixed: Sequence[tuple[str, Callable[[Record], str]]] = (),
) -> list[str]:
    """A table with a row for each workload and a column for each system.

    Args:
        group: Whose records.
        title: Above it.
        systems: The columns.
        cell: A record's text.
        fixed: Further columns before the systems, of any record of the row (ours if there is one).
    """
    if not systems:
        return []
    rows = []
    for row in group.rows:
        of_row = [group.records.get((row, system)) for system in group.systems]
        any_record = next(record for record in of_row if record is not None)
        cells = [group.records.get((row, system)) for system in systems]
        rows.append(
            [
                row[0],
                str(row[1]),
                *(text(any_record) for _, text in fixed),
                *("" if record is None else cell(record) for record in cells),
            ]
        )
    header = ["workload", "rows", *(name for name, _ in fixed), *systems]
    return _wide_tables(title, header, rows, 2 + len(fixed))


def _ratio_tables(group: Group) -> list[str]:
    if all(record.ratio is None for record in group.records.values()):
        return []
    ablations = [system for system in group.systems if system.startswith(f"{OURS}-")]
    others = [system for system in group.systems if system != OURS and system not in ablations]
    fixed = [("ours, s", lambda record: _seconds(record) if record.system == OURS else "")]
    title = "Time ÷ ours (above 1: ours is faster), median and 95% interval of the pairs"
    return [
        *_by_system(group, title, others, ratio_text, fixed),
        *_by_system(group, "Ours without one part, time ÷ ours", ablations, ratio_text, fixed),
    ]


def _bound_tables(group: Group) -> list[str]:
    return _by_system(
        group,
        "Attainable bound ÷ time (1: cannot be faster)",
        group.systems,
        lambda record: f"{record.attainable_s / record.median_s:.2f}",
        [
            ("physical, s", lambda record: f"{record.physical_s:.2f}"),
            ("attainable, s", lambda record: f"{record.attainable_s:.2f}"),
        ],
    )


def _physical_tables(group: Group) -> list[str]:
    return _by_system(
        group,
        "Physical bound ÷ time",
        group.systems,
        lambda record: f"{record.physical_s / record.median_s:.2f}",
    )


def _hit_tables(group: Group) -> list[str]:
    return _by_system(
        group,
        "Prefix hit rate: cached ÷ sent prompt tokens, %",
        group.systems,
        lambda record: f"{100 * record.hit_rate:.1f}",
    )


def _of_systems(
    group: Group, title: str, columns: Sequence[tuple[str, Callable[[Record], str]]]
) -> str:
    """A table with a row for each workload and system."""
    rows = [
        [row[0], system, str(row[1]), *(text(record) for _, text in columns)]
        for row in group.rows
        for system in group.systems
        if (record := group.records.get((row, system))) is not None
    ]
    header = ["workload", "system", "rows", *(name for name, _ in columns)]
    return f"**{title}**\n\n{table(header, rows, num_names=2)}"


def _token_table(group: Group) -> str:
    return _of_systems(
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
            ("prefilled", lambda record: _known(record.scheduled_prefill_tokens, _thousands)),
            ("output", lambda record: _thousands(record.output_tokens)),
        ],
    )


def _cost_table(group: Group) -> str:
    return _of_systems(
        group,
        "Time in s, steps, requests a step, preemptions, latency, planning and client CPU in s, "
        "memory in MB",
        [
            ("time", _seconds),
            ("steps", lambda record: _known(record.steps, "{:,}".format)),
            ("batch", lambda record: f"{_batch(record):.1f}"),
            ("preempted", lambda record: _known(record.preemptions, "{:,}".format)),
            ("p50", lambda record: f"{record.latency_p50_s:.2f}"),
            ("p95", lambda record: f"{record.latency_p95_s:.2f}"),
            ("planning", lambda record: f"{record.planning_s:.3f}"),
            ("CPU", lambda record: f"{record.client_cpu_s:.2f}"),
            ("MB", lambda record: f"{record.memory_mb:.0f}"),
            ("note", lambda record: record.note),
        ],
    )


def _seconds(record: Record) -> str:
    return f"{record.median_s:.2f}"


def _known(count: int | None, text: Callable[[int], str]) -> str:
    """Empty for what was not counted."""
    return "" if count is None else text(count)


def _batch(record: Record) -> float:
    """Requests a step; without steps what a gauge showed, which looks too rarely."""
    return record.mean_running if record.mean_batch is None else record.mean_batch


def _thousands(tokens: float) -> str:
    return f"{tokens / 1000:,.1f}"
