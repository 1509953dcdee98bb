"""How fast an engine can be at best: what the bounds of `benchmarks.harness.bounds` are made of.

Everything is measured through the engine port, as a program would ask, in the same run as what is
compared with it. A bound must never be beaten, so wherever a choice is to be made the engine is
taken to be faster, not slower, than it was seen to be:

- every figure is the best of several rounds;
- time per prefill token is the time *beyond that of the shortest request*, so what a request costs
  apart from its tokens counts for nothing;
- prefill is measured alone, in batches, and behind a cached prefix, and the line through its
  times per token is their lower envelope: no measured point lies below it;
- decode is what longer answers take beyond shorter ones to the same cached prompts, so no prefill
  and no arrival is in it, and a step's time by its batch is the lower hull of all points.

What it cannot know is a machine that is slower while it measures than later. On one whose speed
drifts, calibrate at both ends of a run and take `best_of`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.harness.envelopes import Line, Point, lower_envelope, lower_hull, on_hull
from benchmarks.harness.probes import (
    DecodePoint,
    PrefillPoint,
    Probe,
    measure_decode,
    measure_prefill,
)
from benchmarks.harness.probes import MeasurableEngine as MeasurableEngine


@dataclass(frozen=True, slots=True)
class Calibration:
    """An engine at its best; `dataclasses.asdict` of it is JSON.

    Args:
        prefill: Time per prefill token.
        first_token_s: From sending the shortest request to its answer of one token.
        inter_token_s: Between two tokens of an answer that is computed alone.
        steps: Pairs of a batch and the time of a decode step without context, by batch; convex.
        unique_s: What each position adds to a decode token's time where no other answer of the
            batch has the same context.
        shared_s: The same where all have.
        max_batch: Most requests that the engine computes in one step.
        prefill_points: What `prefill` lies below.
        decode_points: What `steps`, `unique_s` and `shared_s` lie below.
        seconds: What measuring took.
    """

    prefill: Line
    first_token_s: float
    inter_token_s: float
    steps: tuple[Point, ...]
    unique_s: float
    shared_s: float
    max_batch: int
    prefill_points: tuple[PrefillPoint, ...]
    decode_points: tuple[DecodePoint, ...]
    seconds: float

    def decode_s(
        self, batch: float, tokens: int, *, unique_positions: int, shared_positions: int
    ) -> float:
        """Seconds to decode tokens at the best rate of batches of at most this size.

        Args:
            batch: Answers that grow at once.
            tokens: Of all answers.
            unique_positions: Sum of the tokens' positions, as far as no other answer has them.
            shared_positions: As far as another answer has them too.
        """
        sizes = [size for size, _ in self.steps if size < batch] + [batch]
        step_s = min(on_hull(self.steps, size) / size for size in sizes) * tokens
        return step_s + self.unique_s * unique_positions + self.shared_s * shared_positions


async def calibrate(
    engine: MeasurableEngine,
    budget_s: float = 25.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Calibration:
    """Measure a started engine that nobody else uses meanwhile. Its prefix cache is empty after.

    Args:
        engine: What to measure.
        budget_s: Rounds are repeated while they fit in; one is always made.
        clock: In seconds; what the engine's time is measured by.

    Raises:
        ValueError: The engine is not started, answers too few tokens to measure decode, or seems
            to prefill in no time, because something else kept it from its shortest requests.
    """
    probe = await Probe.of(engine, clock)
    start_s = clock()
    first_token_s, prefill_points = await measure_prefill(probe, 0.35 * budget_s)
    token_s = min(point.token_s for point in prefill_points)
    if token_s <= 0:
        raise ValueError(
            "a batch of prompts took no longer than the shortest one: the machine is too busy to "
            "calibrate the engine; stop what else runs, and try again"
        )
    decode_points = await measure_decode(probe, start_s + budget_s - clock(), token_s)
    await engine.reset_prefix_cache()
    return _fitted(
        first_token_s, prefill_points, decode_points, probe.max_requests, clock() - start_s
    )


def best_of(calibrations: Sequence[Calibration]) -> Calibration:
    """One that is nowhere slower than any of these, which are of the same engine.

    Raises:
        ValueError: There are none.
    """
    if not calibrations:
        raise ValueError("the best of no calibrations")
    return _fitted(
        min(each.first_token_s for each in calibrations),
        tuple(point for each in calibrations for point in each.prefill_points),
        tuple(point for each in calibrations for point in each.decode_points),
        max(each.max_batch for each in calibrations),
        sum(each.seconds for each in calibrations),
    )


def _fitted(
    first_token_s: float,
    prefill_points: tuple[PrefillPoint, ...],
    decode_points: tuple[DecodePoint, ...],
    max_batch: int,
    seconds: float,
) -> Calibration:
    steps, unique_s, shared_s = _decode_model(decode_points)
    return Calibration(
        prefill=lower_envelope([(point.position, point.token_s) for point in prefill_points]),
        first_token_s=first_token_s,
        inter_token_s=min(point.step_s for point in decode_points),
        steps=steps,
        unique_s=unique_s,
        shared_s=shared_s,
        max_batch=max_batch,
        prefill_points=prefill_points,
        decode_points=decode_points,
        seconds=seconds,
    )


def _decode_model(points: Sequence[DecodePoint]) -> tuple[tuple[Point, ...], float, float]:
    """A step's time by batch, and what context adds, such that no point lies below them.

    What context adds is read off the largest batch, where there is most of it; a smaller one in
    which it adds less than that lowers the hull.
    """
    shortest = min(point.prompt_tokens for point in points)
    short = [point for point in points if point.prompt_tokens == shortest]
    bare = lower_hull([(point.batch, point.step_s) for point in short])
    bare_position = max(point.position for point in short)

    def slope(is_shared: bool) -> float:
        kind = [p for p in points if p.prompt_tokens > shortest and p.is_shared == is_shared]
        largest = max((point.batch for point in kind), default=0.0)
        return min(
            (
                max(point.token_s - on_hull(bare, point.batch) / point.batch, 0.0)
                / (point.position - bare_position)
                for point in kind
                if point.batch > 0.75 * largest
            ),
            default=0.0,
        )

    unique_s = slope(is_shared=False)
    shared_s = min(slope(is_shared=True), unique_s)
    steps = [
        (p.batch, p.step_s - p.batch * p.position * (shared_s if p.is_shared else unique_s))
        for p in points
    ]
    return lower_hull([(batch, max(step_s, 0.0)) for batch, step_s in steps]), unique_s, shared_s
