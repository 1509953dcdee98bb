"""Records as a run would make them, with times that are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.records import Record, Sample
from benchmarks.harness.statistics import median_interval, paired_ratio

OURS_S = (10.0, 10.2, 9.8, 10.1, 9.9, 10.3, 9.7)


def record(
    system: str,
    factors: Sequence[float] = (1.0,) * 7,
    workload: str = "debate",
    **fields: Any,
) -> Record:
    """A record whose pairs have these ratios; `fields` replace its others."""
    times_s = [factor * ours for factor, ours in zip(factors, OURS_S, strict=False)]
    time, ratio = median_interval(times_s), paired_ratio(times_s, OURS_S[: len(times_s)])
    values: dict[str, Any] = {
        "workload": workload,
        "setting": "pressure",
        "variant": "published",
        "system": system,
        "median_s": time.median,
        "low_s": time.low,
        "high_s": time.high,
        "times_s": times_s,
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "num_items": 32,
        "num_calls": 192,
        "num_sent": 150,
        "prompt_tokens": 170_000,
        "sent_tokens": 120_000,
        "cached_tokens": 90_000,
        "output_tokens": 6_144,
        "mean_running": 31.27,
        "latency_p50_s": 2.125,
        "latency_p95_s": 5.5,
        "planning_s": 0.0123,
        "client_cpu_s": 1.25,
        "memory_mb": 44.4,
        "physical_s": 4.0,
        "attainable_s": 8.0,
        "solo_s": 0.5,
        "samples": [Sample(at_s / 4, 10 + at_s % 7, 3, 0.5) for at_s in range(40)],
        "device": "2 CPU cores",
        "model": "medium",
        "kv_tokens": 16_384,
        "steps": 1_234,
        "mean_batch": 40.06,
        "scheduled_prefill_tokens": 33_300,
        "preemptions": 17,
    }
    return Record(**values | fields)


def some_records() -> list[Record]:
    """Two settings, a win, a loss, an open question, and a batch of three sizes."""
    return [
        record("ours"),
        record("raw", (1.3, 1.31, 1.29, 1.32, 1.28, 1.3, 1.3)),
        record("raw-tuned", (0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96)),
        record("querywise", (20.5,)),
        record("ours-without-memo", (1.1,) * 7),
        record("ours", workload="trading", num_items=4),
        record("raw", (1.02, 0.99, 1.01, 0.98, 1.0, 1.03, 0.97), workload="trading", num_items=4),
        *(
            record(system, num_items=items, median_s=10.0 * items / 32)
            for items in (64, 128)
            for system in ("ours", "raw")
        ),
        record("ours", setting="fits", kv_tokens=131_072),
        record("raw", (1.01,) * 7, setting="fits", kv_tokens=131_072),
    ]
