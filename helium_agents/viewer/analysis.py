"""All that the page tells of a run, worked out once; what is too long is looked at in part.

A run of very many calls is counted as a whole, and shown by some of its rows: those that failed,
those that took longest, those that were asked for, and others evenly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from helium_agents.capacity.outcome import Outcome, measured
from helium_agents.diagnose.analyze import OperatorRow, by_operator, cacheable_tokens
from helium_agents.diagnose.bounds import Bounds, bounds_of
from helium_agents.diagnose.losses import Loss, losses
from helium_agents.diagnose.measured_load import MeasuredLoad, measured_load
from helium_agents.diagnose.prefixes import Prefixes, prefixes
from helium_agents.diagnose.timeline import Load, Phases, load_of, phases_of
from helium_agents.trace.dependencies import waits_of
from helium_agents.trace.run import TracedCall, TracedItem, TracedRun

MOST_CALLS = 20_000
"""So many are shown one by one."""


@dataclass(frozen=True)
class Analysis:
    """What is known of a run.

    Args:
        run: It.
        shown: It with the calls alone that are shown one by one; the same run if all are.
        outcome: How long it took.
        operators: Its calls by operator.
        losses: Of the shown calls, the largest first.
        bounds: Of the shown calls; `None` where nobody knows what a step takes.
        requests: Of the shown calls.
        load: Of all calls, worked out from their times.
        measured: What the engines said that they were at; `None` where not all of them did.
        trees: The prefix trees of the shown calls.
        cacheable: Of each shown call, the tokens that could have been in the cache.
        waits: What each shown call waited for.
    """

    run: TracedRun
    shown: TracedRun
    outcome: Outcome
    operators: list[OperatorRow]
    losses: list[Loss]
    bounds: Bounds | None
    requests: list[Phases]
    load: Load
    measured: MeasuredLoad | None
    trees: list[Prefixes]
    cacheable: dict[int, int]
    waits: dict[int, tuple[int, ...]]


def analyzed(
    run: TracedRun, *, rows: Collection[int] = (), most_calls: int = MOST_CALLS
) -> Analysis:
    """What is known of a run.

    Args:
        run: The run.
        rows: Items to show in any case, by their position in the input.
        most_calls: About so many calls are shown one by one.
    """
    shown = run
    if len(run.calls) > most_calls:
        shown = replace(run, calls=_chosen(run, rows, most_calls))
    outcome = measured(run)
    cacheable = cacheable_tokens(shown)
    trees = prefixes(shown, cacheable)
    requests = phases_of(shown)
    load = load_of(requests, trees) if shown is run else load_of(phases_of(run), ())
    return Analysis(
        run=run,
        shown=shown,
        outcome=outcome,
        operators=by_operator(run, cacheable),
        losses=losses(shown, measured(shown).seconds, cacheable),
        bounds=bounds_of(shown, cacheable) if shown is run else None,
        requests=requests,
        load=load,
        measured=measured_load(run) if _is_all_measured(run) else None,
        trees=trees,
        cacheable=cacheable,
        waits=waits_of(shown),
    )


def _is_all_measured(run: TracedRun) -> bool:
    """Whether the engines of all models that were asked told their steps."""
    return {call.model for call in run.computed} <= {model for model, _ in run.steps}


def _chosen(run: TracedRun, rows: Collection[int], most_calls: int) -> list[TracedCall]:
    """The calls of some items, whole ones; and of those outside of any the first."""
    by_item: dict[int | None, int] = {}
    for call in run.calls:
        by_item[call.item] = by_item.get(call.item, 0) + 1
    failed = {call.item for call in run.calls if call.error is not None}
    items = [item for item in run.items.values() if by_item.get(item.item)]
    chosen: set[int | None] = {item.item for item in items if item.index in rows}
    room = most_calls - sum(by_item[item] for item in chosen)
    slowest = sorted(items, key=_seconds, reverse=True)
    evenly = items[:: max(1, len(run.calls) // most_calls)]
    for some, share in (
        ([item for item in items if item.item in failed or item.error], room // 4),
        (slowest, room // 4),
        (evenly, room // 2),
    ):
        left = share
        for item in some:
            if item.item not in chosen and by_item[item.item] <= left:
                chosen.add(item.item)
                left -= by_item[item.item]
    left = most_calls // 4
    found = []
    for call in run.calls:
        left -= call.item is None
        if call.item in chosen or (call.item is None and left >= 0):
            found.append(call)
    return found


def _seconds(item: TracedItem) -> float:
    return 0.0 if item.ended_s is None else item.ended_s - item.opened_s


def rows_of(calls: Iterable[TracedCall]) -> int:
    """Of how many items calls are."""
    return len({call.item for call in calls if call.item is not None})
