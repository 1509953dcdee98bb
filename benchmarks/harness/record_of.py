"""The record of a system's runs on a case: medians, and ratios of runs in the same round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import mean, median
from typing import Any

from benchmarks.harness.case import Bounds, Case
from benchmarks.harness.engine_counts import EngineCounts
from benchmarks.harness.records import Record, Run
from benchmarks.harness.settings import device
from benchmarks.harness.statistics import Interval, median_interval, paired_ratio, percentile
from benchmarks.harness.system import System
from benchmarks.harness.testbed import Testbed


def record_of(
    system: System,
    tuned: System,
    runs: Mapping[int, Run],
    ours: Mapping[int, Run],
    case: Case,
    bounds: Bounds,
    bed: Testbed,
) -> Record:
    """Make a record.

    Args:
        system: Whose it is.
        tuned: What of its candidates was measured; itself, if it has none.
        runs: By round.
        ours: The runs of the system that all are compared with, by round.
        case: What was run.
        bounds: Of it.
        bed: Where it was run.
    """
    times_s = [run.seconds for run in runs.values()]
    interval = median_interval(times_s)
    ratio = _ratio(runs, ours, lambda run: run.seconds)
    row_ratio = _ratio(runs, ours, _mean_row_s)
    middle = min(runs.values(), key=lambda run: abs(run.seconds - interval.median))
    latencies_s = [each.end_s - each.start_s for run in runs.values() for each in run.requests]

    def typical(value: Callable[[Run], float]) -> float:
        return median(value(run) for run in runs.values())

    settings, inputs, cost = bed.settings, case.batch.inputs, bed.engine.cost
    return Record(
        workload=case.batch.workload.name,
        setting=settings.setting,
        variant=case.variant,
        system=system.name,
        median_s=interval.median,
        low_s=interval.low,
        high_s=interval.high,
        times_s=times_s,
        ratio=ratio.median if ratio else None,
        ratio_low=ratio.low if ratio else None,
        ratio_high=ratio.high if ratio else None,
        num_items=len(case.batch.rows),
        num_calls=case.batch.num_calls,
        num_sent=round(typical(lambda run: len(run.requests))),
        prompt_tokens=sum(len(call.prompt_token_ids) for call in case.known.calls),
        sent_tokens=round(typical(lambda run: sum(each.prompt_tokens for each in run.requests))),
        cached_tokens=round(typical(lambda run: sum(each.cached_tokens for each in run.requests))),
        output_tokens=round(typical(lambda run: sum(each.output_tokens for each in run.requests))),
        mean_running=typical(_mean_running),
        latency_p50_s=percentile(latencies_s, 50),
        latency_p95_s=percentile(latencies_s, 95),
        planning_s=typical(lambda run: run.planning_s),
        client_cpu_s=typical(lambda run: run.client_cpu_s),
        memory_mb=typical(lambda run: run.memory_mb),
        **asdict(bounds),
        note="" if tuned is system else tuned.name,
        samples=list(middle.samples),
        device=device(settings),
        model=settings.model,
        kv_tokens=settings.kv_tokens,
        scale=settings.scale,
        **_counted([run.counts for run in runs.values() if run.counts is not None]),
        row_mean_s=_middle(map(_mean_row_s, runs.values())),
        row_p95_s=_middle(map(_p95_row_s, runs.values())),
        row_ratio=row_ratio.median if row_ratio else None,
        row_ratio_low=row_ratio.low if row_ratio else None,
        row_ratio_high=row_ratio.high if row_ratio else None,
        seed=inputs.seed,
        tool_scale=inputs.tool_scale,
        rows_per_s=inputs.rows_per_s,
        step_cost=None if cost is None else cost.as_dict(),
        choice=middle.choice,
        stolen_shares=[run.stolen_share for run in runs.values()],
    )


def _ratio(
    runs: Mapping[int, Run], ours: Mapping[int, Run], value: Callable[[Run], float | None]
) -> Interval | None:
    """Of a value ÷ ours, over the rounds in which both have it."""
    pairs = [
        (mine, other)
        for number, run in runs.items()
        if number in ours
        and (mine := value(run)) is not None
        and (other := value(ours[number])) is not None
    ]
    return paired_ratio(*map(list, zip(*pairs, strict=True))) if pairs else None


def _middle(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return median(found) if found else None


def _mean_row_s(run: Run) -> float | None:
    return mean(run.row_times_s) if run.row_times_s else None


def _p95_row_s(run: Run) -> float | None:
    return percentile(run.row_times_s, 95) if run.row_times_s else None


def _counted(counts: Sequence[EngineCounts]) -> dict[str, Any]:
    """The fields of a record that tell what the engine counted; none where it did not."""
    if not counts:
        return {}
    return {
        "steps": round(median(each.steps for each in counts)),
        "mean_batch": median(each.mean_batch for each in counts),
        "scheduled_prefill_tokens": round(median(each.prefill_tokens for each in counts)),
        "preemptions": round(median(each.preemptions for each in counts)),
    }


def _mean_running(run: Run) -> float:
    counts = [sample.num_running for sample in run.samples]
    return sum(counts) / len(counts) if counts else 0.0
