"""Sentences made from the numbers: where ours loses, where it wins, how near it is to the bound.

Ours loses only where the upper 95% limit of the paired ratio lies below 1, and wins only where the
lower limit lies above; with fewer than six pairs there is no such limit, and nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.harness.groups import OURS, Group, Row, groups
from benchmarks.harness.records import MUCH_STOLEN, Record
from benchmarks.harness.statistics import MIN_VALUES, Interval, at_least, confidence_of


def sentences(records: Sequence[Record]) -> list[str]:
    """A list in Markdown: where ours loses, where it wins, how near it comes to the bound."""
    found = groups(records)
    systems = dict.fromkeys(system for group in found for system in _others(group))
    lines = [
        *_impossible(records),
        *_losses(found),
        *(line for system in systems for line in _comparison(found, system)),
        *_bound_sentence(found),
        *_undecided(found),
        *_disturbed(records),
    ]
    return [f"- {line}" for line in lines]


def ratio_of(record: Record) -> Interval | None:
    """Time ÷ ours with its limits; `None` where there were no pairs."""
    return _interval(record.ratio, record.ratio_low, record.ratio_high, len(record.times_s))


def row_ratio_of(record: Record) -> Interval | None:
    """Mean time of a row ÷ ours; `None` where rows were not timed."""
    limits = record.row_ratio, record.row_ratio_low, record.row_ratio_high
    return _interval(*limits, len(record.times_s))


def _interval(
    median: float | None, low: float | None, high: float | None, num_pairs: int
) -> Interval | None:
    if median is None or low is None or high is None:
        return None
    return Interval(median, low, high, confidence_of(num_pairs), num_pairs)


def _decided(group: Group, system: str) -> list[Interval]:
    ratios = (ratio_of(record) for _, record in group.of_system(system))
    return [ratio for ratio in ratios if ratio is not None and ratio.is_resolved]


def _impossible(records: Iterable[Record]) -> Iterator[str]:
    beaten = [record for record in records if min(record.times_s) < record.physical_s]
    if beaten:
        worst = min(beaten, key=lambda record: min(record.times_s) / record.physical_s)
        yield (
            f"**The calibration is wrong**: {len(beaten)} results lie below the physical bound; "
            f"on {_row_name(worst)} ({worst.setting}, {worst.variant}) {worst.system} took "
            f"{min(worst.times_s):.2f} s, and the bound is {worst.physical_s:.2f} s."
        )


def _losses(found: Sequence[Group]) -> Iterator[str]:
    num_compared = num_losses = 0
    for group in found:
        for system in _others(group):
            for _, record in group.of_system(system):
                ratio = ratio_of(record)
                num_compared += ratio is not None and ratio.is_resolved
                if ratio is not None and at_least(ratio, 1) == "fails":
                    num_losses += 1
                    yield (
                        f"**Ours loses** to {system} on {_row_name(record)} ({group.title}): "
                        f"{system} takes {ratio_text(record, digits=3)} of our time."
                    )
    if num_compared and not num_losses:
        yield (
            f"Ours loses none of {num_compared} comparisons: no upper 95% limit of time ÷ ours "
            "lies below 1."
        )


def _others(group: Group) -> list[str]:
    return [system for system in group.systems if system != OURS]


def _comparison(found: Sequence[Group], system: str) -> Iterator[str]:
    parts = []
    for group in found:
        ratios = _decided(group, system)
        if ratios:
            parts.append(f"{_score(ratios)} ({group.title})")
    if parts:
        yield f"Against {system} ours is faster on {'; on '.join(parts)}."


def _score(ratios: Sequence[Interval]) -> str:
    wins = sorted(ratio.median for ratio in ratios if ratio.low > 1)
    num_losses = sum(at_least(ratio, 1) == "fails" for ratio in ratios)
    text = f"{len(wins)} of {len(ratios)}"
    if wins:
        text += f", by {wins[0]:.2f}x" + (f" to {wins[-1]:.2f}x" if len(wins) > 1 else "")
    return f"{text}, slower on {num_losses}" if num_losses else text


def _bound_sentence(found: Sequence[Group]) -> Iterator[str]:
    for group in found:
        shares = [
            (record.attainable_s / record.median_s, row) for row, record in group.of_system(OURS)
        ]
        if shares:
            ends = dict.fromkeys((min(shares), max(shares)))  # one where there is only one
            reached = " to ".join(f"{share:.0%} ({_name(row)})" for share, row in ends)
            yield f"Ours reaches {reached} of what is attainable ({group.title})."


def _undecided(found: Sequence[Group]) -> Iterator[str]:
    pairs: dict[str, set[int]] = {}
    for group in found:
        for system in _others(group):
            for _, record in group.of_system(system):
                ratio = ratio_of(record)
                if ratio is not None and not ratio.is_resolved:
                    pairs.setdefault(system, set()).add(ratio.num_values)
    if pairs:
        names = ", ".join(f"{name} ({_count(numbers)})" for name, numbers in pairs.items())
        yield (
            f"Not decided, because fewer than {MIN_VALUES} pairs have no 95% interval "
            f"(brackets marked * are the range): {names}."
        )


def _disturbed(records: Iterable[Record]) -> Iterator[str]:
    """The runs of which the hypervisor took much, among those where that was looked at."""
    stolen = [(share, record) for record in records for share in record.stolen_shares]
    much = [(share, record) for share, record in stolen if share > MUCH_STOLEN]
    if much:
        share, worst = max(much, key=lambda each: each[0])
        yield (
            f"In {len(much)} of {len(stolen)} runs the hypervisor gave more than "
            f"{MUCH_STOLEN:.0%} of the CPU time to others, at most {share:.0%} "
            f"({worst.system} on {_row_name(worst)}, {worst.setting})."
        )


def _count(numbers: set[int]) -> str:
    text = " or ".join(map(str, sorted(numbers)))
    return f"{text} pair{'' if numbers == {1} else 's'}"


def _name(row: Row) -> str:
    return f"{row[0]} x {row[1]}"


def _row_name(record: Record) -> str:
    return _name((record.workload, record.num_items))


def ratio_text(record: Record, digits: int = 2) -> str:
    """The median with its limits; a mark where they are only the range of few pairs."""
    return _text(ratio_of(record), digits)


def row_ratio_text(record: Record) -> str:
    """The same of the mean time of a row."""
    return _text(row_ratio_of(record), 2)


def _text(ratio: Interval | None, digits: int) -> str:
    if ratio is None:
        return ""
    text = f"{ratio.median:.{digits}f}"
    if ratio.num_values > 1:
        text += f" [{ratio.low:.{digits}f}, {ratio.high:.{digits}f}]"
    return text if ratio.is_resolved else f"{text}*"
