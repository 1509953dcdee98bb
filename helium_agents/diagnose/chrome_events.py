"""The kinds of Chrome trace events: names, spans, curves, arrows and marks.

Times are in microseconds, to the nanosecond; the spans of a thread must nest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Event = dict[str, Any]

Place = tuple[int, int]
"""A process and a thread."""


def process_names(process: int, name: str) -> Iterator[Event]:
    """What a process is called; it stands above those of lower numbers."""
    order = {"sort_index": -process}
    yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": process, "name": "process_sort_index", "args": order}


def thread_names(process: int, thread: int, name: str) -> Iterator[Event]:
    """What a thread is called; it stands below those of lower numbers."""
    place = {"ph": "M", "pid": process, "tid": thread}
    yield {**place, "name": "thread_name", "args": {"name": name}}
    yield {**place, "name": "thread_sort_index", "args": {"sort_index": thread}}


def span_event(
    process: int,
    thread: int,
    start_s: float,
    end_s: float,
    category: str,
    name: str,
    told: dict[str, Any],
) -> Event:
    """A span; `category` may be several, with commas between them."""
    length = (_nanoseconds(end_s) - _nanoseconds(start_s)) / 1000
    event = _event("X", (process, thread), start_s, name=name, cat=category, dur=length)
    return {**event, "args": told} if told else event


def counter_event(process: int, name: str, time_s: float, value: float) -> Event:
    """The value that a curve has from a time on."""
    return _event("C", (process, 0), time_s, name=name, args={"value": value})


def arrow_events(
    number: int, name: str, ends: tuple[Place, Place], from_s: float, to_s: float
) -> Iterator[Event]:
    """An arrow between the innermost spans that two threads have, each at a time."""
    about: dict[str, Any] = {"name": name, "cat": "flow", "id": number}
    yield _event("s", ends[0], from_s, **about)
    yield _event("f", ends[1], to_s, **about, bp="e")


def mark_event(process: int, time_s: float, name: str, told: dict[str, Any]) -> Event:
    """A mark over all of the run."""
    return _event("i", (process, 0), time_s, name=name, cat="run", s="g", args=told)


def _event(phase: str, place: Place, time_s: float, **more: Any) -> Event:
    process, thread = place
    time = _nanoseconds(time_s) / 1000
    return {"ph": phase, "pid": process, "tid": thread, "ts": time, **more}


def _nanoseconds(time_s: float) -> int:
    return round(time_s * 1e9)
