"""What came of a run, traced or simulated: times and what engines computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from statistics import mean

from helium_agents.trace.run import TracedCall, TracedRun


@dataclass(frozen=True)
class Outcome:
    """Times in seconds.

    Args:
        seconds: From when the first request was sent until the last answer, or item, was there;
            where none was sent, from when the first item was opened.
        mean_s: Of an item, on average; `None` where there were none, or it is not known.
        p95_s: Nineteen of twenty items took no longer.
        prefill_tokens: Prompt tokens that engines computed, like `steps` where that is known.
        steps: Steps of the engines.
    """

    seconds: float
    mean_s: float | None
    p95_s: float | None
    prefill_tokens: int | None
    steps: int | None


def outcome_of(
    seconds: float, item_s: Sequence[float], *, prefill_tokens: int, steps: int | None
) -> Outcome:
    """An outcome, from how long each item took."""
    if not item_s:
        return Outcome(seconds, None, None, prefill_tokens, steps)
    p95_s = sorted(item_s)[ceil(0.95 * len(item_s)) - 1]
    return Outcome(seconds, mean(item_s), p95_s, prefill_tokens, steps)


def _requests(run: TracedRun) -> list[TracedCall]:
    """The calls for which an engine was asked, failed ones too."""
    return [call for call in run.calls if call.is_computed or call.sent_s is not None]


def measured(run: TracedRun) -> Outcome:
    """What a trace says. The start of engines counts for nothing; of several parts the sum counts.

    Prompt tokens that were computed again after a preemption are not told by engines.
    """
    bounds = [part.start_s for part in run.parts] + [float("inf")]
    seconds, item_s = 0.0, []
    for start_s, end_s in pairwise(bounds):
        calls = [call for call in _requests(run) if start_s <= call.asked_s < end_s]
        items = [
            (item.opened_s, item.ended_s)
            for item in run.items.values()
            if item.ended_s is not None and start_s <= item.ended_s < end_s
        ]
        begins = [call.sent_s or call.asked_s for call in calls] or [begun for begun, _ in items]
        if not begins:
            continue
        first_s = min(begins)
        seconds += max([call.end_s for call in calls] + [ended_s for _, ended_s in items]) - first_s
        item_s += [max(0.0, ended_s - max(opened_s, first_s)) for opened_s, ended_s in items]
    prefill_tokens = sum(call.prompt_tokens - call.cached_tokens for call in run.computed)
    return outcome_of(seconds, item_s, prefill_tokens=prefill_tokens, steps=None)
