"""What a run's engines were at, as they measured it themselves: batches, tokens, the KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import add, sub

from helium_agents.optimizer.step_window import StepWindow
from helium_agents.trace.run import TracedRun

_MOST_POINTS = 4_000
_PAUSE_S = 0.05
"""An engine that begins its next step later than this had nothing to do in between."""


@dataclass(frozen=True)
class MeasuredLoad:
    """What was under way from each time to the next, of all engines together.

    Args:
        times: In seconds since the run began.
        running: Requests that the engines were at.
        waiting: Requests that they had been sent and had not begun.
        kv_tokens: What these requests held of the KV caches; empty where their sizes are not known.
        prefill_rate: Prompt tokens computed in a second.
        decode_rate: Tokens of answers computed in a second; the first of each comes with its
            prompt.
    """

    times: list[float]
    running: list[float]
    waiting: list[float]
    kv_tokens: list[int]
    prefill_rate: list[float]
    decode_rate: list[float]


def measured_load(run: TracedRun, model: str | None = None) -> MeasuredLoad | None:
    """The load of a run's engines; `None` where none of them told it.

    Args:
        run: The run.
        model: Of this model alone.
    """
    every = {key: windows for key, windows in run.steps.items() if model in (None, key[0])}
    rooms = {key: _kv_tokens_of_one(run, key[0]) for key in every}
    changes = sorted(
        change
        for key, windows in every.items()
        for change in _changes(windows, rooms[key] or 0)
    )  # fmt: skip
    if not changes:
        return None
    load = MeasuredLoad([], [], [], [], [], [])
    state: tuple[float, ...] = (0.0,) * 5
    every_s = (changes[-1][0] - changes[0][0]) / _MOST_POINTS
    for place, (time_s, sign, values) in enumerate(changes):
        state = tuple(map(add if sign > 0 else sub, state, values))
        next_s = changes[place + 1][0] if place + 1 < len(changes) else None
        if next_s == time_s:
            continue
        if next_s is not None and load.times and next_s - load.times[-1] < every_s:
            continue
        load.times.append(time_s)
        _append(load, state, has_kv=None not in rooms.values())
    return load


def _append(load: MeasuredLoad, state: Sequence[float], *, has_kv: bool) -> None:
    running, waiting, kv_tokens, prefill_rate, decode_rate = (max(0.0, each) for each in state)
    load.running.append(round(running, 2))
    load.waiting.append(round(waiting, 2))
    load.prefill_rate.append(round(prefill_rate, 1))
    load.decode_rate.append(round(decode_rate, 1))
    if has_kv:
        load.kv_tokens.append(round(kv_tokens))


def _changes(
    windows: Sequence[StepWindow], kv_tokens: int
) -> Iterator[tuple[float, int, tuple[float, ...]]]:
    """When an engine's load begins and ends: a time, +1 or -1, and how much it is."""
    for place, window in enumerate(windows):
        end_s = window.end_s
        if place + 1 < len(windows) and windows[place + 1].begin_s - end_s < _PAUSE_S:
            end_s = windows[place + 1].begin_s
        seconds = max(window.seconds, 1e-6)
        values = (
            window.running,
            window.waiting,
            window.kv_share * kv_tokens,
            window.prefill_tokens / seconds,
            window.decode_tokens / seconds,
        )
        yield window.begin_s, 1, values
        yield max(end_s, window.begin_s), -1, values


def _kv_tokens_of_one(run: TracedRun, model: str) -> int | None:
    """What one engine of a model holds; `None` where that is not known."""
    engine = run.engines.get(model)
    if engine is None or engine.capacity is None:
        return None
    return engine.capacity["kv_tokens"] // engine.num_engines
