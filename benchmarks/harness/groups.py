"""Records by what they can be compared within: one engine, one setting and one variant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.harness.records import Record

OURS = "ours"
"""The system that all others are compared with."""

Row = tuple[str, int]
"""What a row of a table is about: a workload and its number of items."""


@dataclass(frozen=True)
class Group:
    """The records of one engine, setting and variant.

    Args:
        setting: ``pressure`` or ``fits``.
        variant: ``published`` or ``distinct``.
        engine: Device, model and scale, as far as they differ among the groups.
        records: By row and system.
        rows: Workloads in the order in which they were measured, small batches first.
        systems: Ours first, then in the order in which they were measured.
    """

    setting: str
    variant: str
    engine: str
    records: dict[tuple[Row, str], Record]
    rows: list[Row]
    systems: list[str]

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return ", ".join(filter(None, (self.setting, self.variant, self.engine)))

    def of_system(self, system: str) -> Iterator[tuple[Row, Record]]:
        """A system's records by row."""
        for row in self.rows:
            record = self.records.get((row, system))
            if record is not None:
                yield row, record


def groups(records: Iterable[Record]) -> list[Group]:
    """The records by engine, setting and variant, in the order in which they were measured.

    Raises:
        ValueError: One system has two records for the same workload and batch in a group.
    """
    records = list(records)
    engines = _engines(records)
    found: dict[tuple[str, str, str], Group] = {}
    workloads: dict[str, int] = {}
    for record in records:
        key = record.setting, record.variant, engines[record.engine]
        group = found.setdefault(key, Group(*key, {}, [], []))
        row = record.workload, record.num_items
        workloads.setdefault(record.workload, len(workloads))
        if (row, record.system) in group.records:
            raise ValueError(
                f"two records of {record.system} for {record.workload} x {record.num_items} "
                f"({group.title})"
            )
        group.records[row, record.system] = record
        if row not in group.rows:
            group.rows.append(row)
        if record.system not in group.systems:
            group.systems.append(record.system)
    for group in found.values():
        group.rows.sort(key=lambda row: (workloads[row[0]], row[1]))
        group.systems.sort(key=lambda system: system != OURS)
    return list(found.values())


def _engines(records: Iterable[Record]) -> dict[tuple[str, ...], str]:
    """What each engine is called: the words that not all of them share, without explanations."""
    engines = dict.fromkeys(record.engine for record in records)
    common = {words[0] for words in zip(*engines, strict=True) if len(set(words)) == 1}
    return {
        engine: ", ".join(words.partition(" (")[0] for words in engine if words not in common)
        for engine in engines
    }
