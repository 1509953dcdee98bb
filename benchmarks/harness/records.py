"""What is measured: requests, runs, and the records that results are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.harness.engine_counts import EngineCounts

MUCH_STOLEN = 0.02
"""A run of which the hypervisor gave a larger share of the CPU time to others tells less."""


@dataclass(frozen=True, slots=True)
class SentRequest:
    """One request that reached an engine, as its client saw it.

    Args:
        start_s: When it was sent, in seconds since the run began.
        end_s: When its answer was there.
        prompt_tokens: Of which `cached_tokens` were in the prefix cache.
        cached_tokens: Prompt tokens that needed no prefill.
        output_tokens: Tokens of the answer.
    """

    start_s: float
    end_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What the engine said of itself at one moment.

    Args:
        at_s: Seconds since the run began.
        num_running: Requests in its batch.
        num_waiting: Requests in its queue.
        kv_usage: Share of its KV blocks in use, 0 to 1.
    """

    at_s: float
    num_running: int
    num_waiting: int
    kv_usage: float


@dataclass
class Run:
    """One run of one system on one workload.

    Args:
        seconds: Wall time.
        client_cpu_s: CPU time of the process that holds the system, without the engine's.
        planning_s: Time spent on planning, where the system says so.
        memory_mb: By how much that process grew at most.
        requests: What reached the engine, in the order in which it was sent.
        samples: The engine's state over time.
        counts: What the engine computed; `None` where it does not count.
        row_times_s: How long each row took from its arrival on; empty where nobody says so.
        choice: The schedule that the system chose, in words.
        stolen_share: Of the CPU time meanwhile, what the hypervisor gave to others, 0 to 1.
    """

    seconds: float
    client_cpu_s: float
    planning_s: float
    memory_mb: float
    requests: Sequence[SentRequest]
    samples: Sequence[Sample]
    counts: EngineCounts | None = None
    row_times_s: Sequence[float] = ()
    choice: str = ""
    stolen_share: float = 0.0


@dataclass
class Record:
    """The result of one system on one workload; what JSON results are a list of.

    Times are in seconds. ``low`` and ``high`` are the limits of a 95% interval of the median.

    Args:
        workload: Its name.
        setting: ``pressure`` or ``fits``; see `benchmarks.harness.settings`.
        variant: ``published``, or ``distinct`` where repeated calls were made to differ.
        system: Its name.
        median_s: Median wall time.
        low_s: Lower limit of its interval.
        high_s: Upper limit.
        times_s: All wall times, in the order in which they were measured.
        ratio: Median of the paired ratios, time ÷ time of ours; 1 for ours, `None` without pairs.
        ratio_low: Lower limit of its interval.
        ratio_high: Upper limit.
        num_items: Rows.
        num_calls: Model calls that the workload makes.
        num_sent: Requests that reached the engine (median).
        prompt_tokens: Prompt tokens of all calls.
        sent_tokens: Prompt tokens that reached the engine.
        cached_tokens: Those of them that its prefix cache had.
        output_tokens: Tokens that the engine produced.
        mean_running: Mean number of requests in the engine's batch, as samples in time show it.
        latency_p50_s: Median of the time from sending a request to its answer.
        latency_p95_s: 95% quantile.
        planning_s: Time spent on planning.
        client_cpu_s: CPU time of the client.
        memory_mb: By how much the client's process grew.
        physical_s: The physical bound: nothing can be faster.
        attainable_s: The attainable bound.
        solo_s: Best possible time of the longest chain of dependent calls.
        note: What else decided the result, e.g. the limit that a sweep chose.
        samples: The engine's state over time in the run of the median time.
        device: The machine, in words.
        model: The model's shape, in words.
        kv_tokens: Capacity of the KV cache.
        scale: Size relative to the full workload.
        steps: Steps of the engine that scheduled a token (median, as of those that follow);
            `None`, as those, where the engine did not count.
        mean_batch: Requests per step.
        scheduled_prefill_tokens: Tokens scheduled to prefill. More than the prompt tokens that
            were sent and not cached by those that preemptions made the engine compute again.
        preemptions: How often a request lost its place in the batch.
        row_mean_s: Mean time of a row from its arrival to its end (median of the runs, as of those
            that follow); `None` where the system does not say when rows end.
        row_p95_s: 95% quantile of these times.
        row_ratio: Median of the paired ratios of `row_mean_s`, this system's ÷ ours.
        row_ratio_low: Lower limit of its interval.
        row_ratio_high: Upper limit.
        seed: Of the rows, as far as they are generated.
        tool_scale: What the times of tools were multiplied by, where the workload uses tools.
        rows_per_s: Rows that arrive in a second, where they do not come all at once.
        step_cost: What a step of the engine takes, as the engine itself has measured it.
        choice: The schedule that the system chose, in words.
        predicted_s: What the exact simulator says of this system at that cost.
        predicted_steps: And how many steps it has then.
        best_simulated_s: The least time that any schedule has there; in the record of ours.
        best_simulated: Which one.
        fits_s: What ours would take there if everything fitted into the KV cache.
        stolen_shares: Of the CPU time of each run, as in `times_s`, what the hypervisor gave to
            others; empty where that was not looked at.
    """

    workload: str
    setting: str
    variant: str
    system: str
    median_s: float
    low_s: float
    high_s: float
    times_s: list[float]
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    num_items: int
    num_calls: int
    num_sent: int
    prompt_tokens: int
    sent_tokens: int
    cached_tokens: int
    output_tokens: int
    mean_running: float
    latency_p50_s: float
    latency_p95_s: float
    planning_s: float
    client_cpu_s: float
    memory_mb: float
    physical_s: float
    attainable_s: float
    solo_s: float
    note: str = ""
    samples: list[Sample] = field(default_factory=list)
    device: str = ""
    model: str = ""
    kv_tokens: int = 0
    scale: float = 1.0
    steps: int | None = None
    mean_batch: float | None = None
    scheduled_prefill_tokens: int | None = None
    preemptions: int | None = None
    row_mean_s: float | None = None
    row_p95_s: float | None = None
    row_ratio: float | None = None
    row_ratio_low: float | None = None
    row_ratio_high: float | None = None
    seed: int = 1
    tool_scale: float = 0.15
    rows_per_s: float = 3.5
    step_cost: dict[str, float] | None = None
    choice: str = ""
    predicted_s: float | None = None
    predicted_steps: int | None = None
    best_simulated_s: float | None = None
    best_simulated: str = ""
    fits_s: float | None = None
    stolen_shares: list[float] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        """Share of the sent prompt tokens that the prefix cache had, 0 to 1."""
        return self.cached_tokens / self.sent_tokens if self.sent_tokens else 0.0

    @property
    def never_sent_tokens(self) -> int:
        """Prompt tokens of calls that were remembered or merged."""
        return self.prompt_tokens - self.sent_tokens

    @property
    def to_prefill_tokens(self) -> int:
        """Prompt tokens that were sent and that the prefix cache did not have."""
        return self.sent_tokens - self.cached_tokens

    @property
    def engine(self) -> tuple[str, str, str]:
        """What computed it, in words: the device, the model, and the size."""
        return self.device, self.model, f"scale {self.scale:g}"


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as a JSON list, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n")
    unfinished.replace(path)


def read_records(path: Path) -> list[Record]:
    """Read what `write_records` wrote.

    Raises:
        ValueError: The file is something else; the message says what.
    """
    try:
        found = json.loads(path.read_text())
        return [
            Record(**values | {"samples": [Sample(**each) for each in values["samples"]]})
            for values in found
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no list of benchmark records: {error}") from error
