"""The goals of the planner, and whether records show that they are met.

A claim "not below x" fails only if the upper 95% limit of a ratio lies below x. A claim "x times as
fast" is met by the median; what is not measured is said to be so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.harness.groups import OURS
from benchmarks.harness.records import Record
from benchmarks.harness.statistics import Interval, at_least
from benchmarks.harness.tables import table
from benchmarks.harness.verdicts import ratio_of, row_ratio_of

State = Literal["met", "not met", "not decided", "not measured"]
Results = Mapping[str, Sequence[Record]]
"""Records by cell."""

Outcomes = Mapping[str, Sequence[Mapping[str, float]]]
"""By cell of tool loops (`benchmarks.tool_loops`), for each seed how much faster ours is."""

_NUM_PAPER = 7
_FASTER = {"debate": 1.5, "mapred-mmlu": 1.25, "trading": 1.3, "reflect": 1.08}
_LOOPS = {
    "cpu-medium-2": (2.0, 2.4),
    "cpu-medium-0.5": (2.7, 3.4),
    "h100-8b-2": (1.4, None),
    "h100-8b-0.5": (2.1, None),
}
_LONG_PAUSES = "cpu-medium-10"


@dataclass(frozen=True)
class Verdict:
    """Whether a goal is met.

    Args:
        goal: In words, with the number.
        found: What was measured, in words.
        state: What follows.
    """

    goal: str
    found: str
    state: State


def verdicts(results: Results, loops: Outcomes) -> list[Verdict]:
    """All goals, in the order of the plan."""
    return [
        *_against_raw(results.get("raw", ())),
        *_against_tuned(results.get("tuned", ())),
        *_tools(results, loops),
        _geometric("LangGraph ÷ ours", _medians(results.get("raw", ()), "langgraph"), 1.22),
        *_beside_simulations(results.get("raw", ())),
        *_where_nothing_is_to_win(results.get("fits", ()), loops),
    ]


def goals_table(results: Results, loops: Outcomes) -> str:
    """The verdicts as a table, and how many there are of each kind."""
    found = verdicts(results, loops)
    rows = [[each.goal, each.found, each.state] for each in found]
    counts = {state: sum(each.state == state for each in found) for state in _STATES}
    sentence = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    return f"{table(['goal', 'found', ''], rows, num_names=3)}\n\n{sentence}.\n"


_STATES: tuple[State, ...] = ("met", "not met", "not decided", "not measured")


# --- the goals -------------------------------------------------------------------------------


def _against_raw(records: Sequence[Record]) -> Iterator[Verdict]:
    yield _never_below("raw ÷ ours", _ratios(records, "raw"), 0.98, _NUM_PAPER)
    medians = _medians(records, "raw")
    for workload, least in _FASTER.items():
        yield _one(f"raw ÷ ours, {workload}", medians.get(workload), least)
    yield _geometric("raw ÷ ours", medians, 1.15)


def _against_tuned(records: Sequence[Record]) -> Iterator[Verdict]:
    name = "best fixed limit ÷ ours"
    yield _never_below(name, _ratios(records, "raw-tuned"), 0.97, _NUM_PAPER)
    yield _geometric(name, _medians(records, "raw-tuned"), 1.0)


def _tools(results: Results, loops: Outcomes) -> Iterator[Verdict]:
    for cell, (makespan, mean) in _LOOPS.items():
        outcomes = loops.get(cell, ())
        title = f"raw ÷ ours, tools simulated, {cell} s"
        yield _over_seeds(f"{title}, makespan", outcomes, "makespan", makespan)
        if mean is not None:
            yield _over_seeds(f"{title}, mean completion", outcomes, "mean", mean)
    for cell in ("tools", "tools-large"):
        found = {record.system: record for record in results.get(cell, ())}
        raw, tuned = found.get("raw"), found.get("raw-tuned")
        yield _one(f"raw ÷ ours, {cell}, makespan", _median(raw, ratio_of), 1.4)
        yield _one(f"raw ÷ ours, {cell}, mean completion", _median(raw, row_ratio_of), 1.6)
        limit = {} if tuned is None or (ratio := ratio_of(tuned)) is None else {cell: ratio}
        yield _never_below(f"best tried limit ÷ ours, {cell}", limit, 0.97, 1)
        for rival in ("raw-tuned", "attained-service", "lease"):
            ahead = _median(found.get(rival), row_ratio_of)
            yield _one(f"{rival} ÷ ours, {cell}, mean completion", ahead, 1.0)


def _beside_simulations(records: Sequence[Record]) -> Iterator[Verdict]:
    ours = {record.workload: record for record in records if record.system == OURS}
    yield _all_within(
        "best simulated schedule ÷ ours, simulated, each",
        {
            name: record.best_simulated_s / record.predicted_s
            for name, record in ours.items()
            if record.best_simulated_s is not None and record.predicted_s is not None
        },
        (1 / 1.03, math.inf),
    )
    bounds = {name: record.attainable_s / record.median_s for name, record in ours.items()}
    yield _geometric("attainable bound ÷ time", bounds, 0.9)
    yield _all_within(
        "predicted ÷ measured time, each",
        {
            name: record.predicted_s / record.median_s
            for name, record in ours.items()
            if record.predicted_s is not None
        },
        (0.9, 1.1),
    )


def _where_nothing_is_to_win(records: Sequence[Record], loops: Outcomes) -> Iterator[Verdict]:
    name = "raw ÷ ours where all fits"
    yield _never_below(f"{name}, makespan", _ratios(records, "raw"), 0.98, _NUM_PAPER + 1)
    p95 = {record.workload: record.row_p95_s for record in records if record.system == OURS}
    ratios = {
        record.workload: record.row_p95_s / ours
        for record in records
        if record.system == "raw"
        and record.row_p95_s is not None
        and (ours := p95.get(record.workload)) is not None
    }
    yield _all_within(f"{name}, p95 of a row (medians), each", ratios, (0.98, math.inf))
    outcomes = loops.get(_LONG_PAUSES, ())
    for measure in ("makespan", "p95"):
        least = {str(seed): each[measure] for seed, each in enumerate(outcomes, start=1)}
        title = f"raw ÷ ours, tools of 10 s simulated, {measure}, each seed"
        yield _all_within(title, least, (0.98, math.inf), num_wanted=1)


# --- kinds of claims -------------------------------------------------------------------------


def _ratios(records: Sequence[Record], system: str) -> dict[str, Interval]:
    ratios = {each.workload: ratio_of(each) for each in records if each.system == system}
    return {name: ratio for name, ratio in ratios.items() if ratio is not None}


def _medians(records: Sequence[Record], system: str) -> dict[str, float]:
    return {name: ratio.median for name, ratio in _ratios(records, system).items()}


def _median(record: Record | None, ratio: Callable[[Record], Interval | None]) -> float | None:
    found = None if record is None else ratio(record)
    return None if found is None else found.median


def _never_below(
    name: str, ratios: Mapping[str, Interval], least: float, num_wanted: int
) -> Verdict:
    goal = f"{name} never shown below {least:g}"
    if not ratios:
        return Verdict(goal, "", "not measured")
    worst = min(ratios, key=lambda each: ratios[each].high)
    found = f"worst {worst} {ratios[worst].median:.2f}, up to {ratios[worst].high:.2f}"
    outcomes = {at_least(ratio, least) for ratio in ratios.values()}
    state: State = "met"
    if "fails" in outcomes:
        state = "not met"
    elif "undecided" in outcomes or len(ratios) < num_wanted:
        state = "not decided"
    return Verdict(goal, _with_number(found, len(ratios), num_wanted), state)


def _one(name: str, value: float | None, least: float) -> Verdict:
    goal = f"{name} {least:g}"
    if value is None:
        return Verdict(goal, "", "not measured")
    return Verdict(goal, f"{value:.2f}", "met" if value >= least else "not met")


def _geometric(name: str, values: Mapping[str, float], least: float) -> Verdict:
    goal = f"{name}, geometric mean of the paper's {least:g}"
    if not values:
        return Verdict(goal, "", "not measured")
    mean = math.prod(values.values()) ** (1 / len(values))
    found = _with_number(f"{mean:.3f}", len(values), _NUM_PAPER)
    if len(values) < _NUM_PAPER:
        return Verdict(goal, found, "not decided")
    return Verdict(goal, found, "met" if mean >= least else "not met")


def _all_within(
    name: str,
    values: Mapping[str, float],
    limits: tuple[float, float],
    num_wanted: int = _NUM_PAPER,
) -> Verdict:
    low, high = limits
    goal = f"{name} at least {low:.2f}" + ("" if high == math.inf else f", at most {high:.2f}")
    if not values:
        return Verdict(goal, "", "not measured")
    ends = min(values, key=lambda each: values[each]), max(values, key=lambda each: values[each])
    found = " to ".join(f"{values[each]:.2f} ({each})" for each in dict.fromkeys(ends))
    state: State = "met" if all(low <= each <= high for each in values.values()) else "not met"
    if state == "met" and len(values) < num_wanted:
        state = "not decided"
    return Verdict(goal, _with_number(found, len(values), num_wanted), state)


def _over_seeds(
    name: str, outcomes: Sequence[Mapping[str, float]], measure: str, least: float
) -> Verdict:
    """By the geometric mean of the seeds."""
    goal = f"{name} {least:g}"
    if not outcomes:
        return Verdict(goal, "", "not measured")
    values = [each[measure] for each in outcomes]
    mean = math.prod(values) ** (1 / len(values))
    found = f"{mean:.2f} ({min(values):.2f} to {max(values):.2f} of {len(values)} seeds)"
    return Verdict(goal, found, "met" if mean >= least else "not met")


def _with_number(found: str, number: int, wanted: int) -> str:
    return found if number >= wanted else f"{found} ({number} of {wanted})"
