"""Markdown tables of records, which a terminal shows as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from benchmarks.harness.groups import Group
from benchmarks.harness.records import Record

MAX_WIDTH = 100

Number = TypeVar("Number", int, float)


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


def wide_tables(
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


def by_system(
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
    return wide_tables(title, header, rows, 2 + len(fixed))


def of_systems(
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


def seconds(record: Record) -> str:
    """The median time."""
    return f"{record.median_s:.2f}"


def known(number: Number | None, text: Callable[[Number], str]) -> str:
    """Empty for what was not counted, or not predicted."""
    return "" if number is None else text(number)
