"""What progress says, by a clock of its own."""

from __future__ import annotations

import io
import re
import time

import pytest

from helium_agents.telemetry.events import (
    CallSettled,
    EngineStarted,
    EngineStarting,
    Event,
    ItemClosed,
    MapOpened,
    Source,
    Usage,
)
from helium_agents.telemetry.progress import Progress, duration


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def settled(source: Source) -> Event:
    return CallSettled(
        kind="llm",
        label="llm",
        source=source,
        usage=Usage(asked_s=0.0, prompt_tokens=100, cached_tokens=50, output_tokens=20),
        error=None,
    )


def test_line_says_what_happened() -> None:
    clock = Clock()
    progress = Progress("answer", io.StringIO(), clock=clock)
    assert progress.line() == "answer: 0 items · 0 calls · preparing..."
    progress(MapOpened(10, is_nested=False))
    progress(EngineStarting("Qwen"))
    clock.now_s = 7.0
    assert progress.line() == "answer: 0/10 items · 0 calls · loading Qwen... 7 s"
    progress(EngineStarted("Qwen", 7.0))
    progress.remember_rate()
    for source in ("engine", "engine", "merged", "joined", "memo", "earlier"):
        progress(settled(source))
    progress(ItemClosed(0, is_nested=False, error=None))
    progress(ItemClosed(1, is_nested=False, error=ValueError()))
    progress(ItemClosed(2, is_nested=True, error=None))
    clock.now_s = 9.0
    progress.remember_rate()
    assert progress.line() == (
        "answer: 2/10 items (1 failed) · 6 calls · 20 tok/s · 2 merged · 1 from memo · "
        "1 answered earlier · prefix hits 50% · eta 8.0 s"
    )


def test_rates_are_of_the_last_half_minute() -> None:
    clock = Clock()
    progress = Progress("answer", io.StringIO(), clock=clock)
    progress(MapOpened(1000, is_nested=False))
    for second in range(100):  # remembered items are quick, later ones slow
        clock.now_s = float(second)
        for _ in range(10 if second < 50 else 1):
            progress(ItemClosed(0, is_nested=False, error=None))
        progress.remember_rate()
    assert "550/1,000 items" in progress.line()
    assert progress.line().endswith("eta 7 min 30 s")


def test_rows_of_an_earlier_part_of_the_run_count_as_done() -> None:
    clock = Clock()
    progress = Progress("answer", io.StringIO(), clock=clock)
    progress(MapOpened(10, is_nested=False, num_done=4))
    progress.remember_rate()
    progress(ItemClosed(4, is_nested=False, error=None))
    clock.now_s = 1.0
    progress.remember_rate()
    assert progress.line() == "answer: 5/10 items · 0 calls · eta 5.0 s"


def test_plain_lines_elsewhere_than_on_a_terminal() -> None:
    file = io.StringIO()
    with Progress("answer", file, plain_interval_s=0.01) as progress:
        progress(MapOpened(3, is_nested=False))
        deadline_s = time.monotonic() + 60
        while file.getvalue().count("\n") < 2 and time.monotonic() < deadline_s:
            time.sleep(0.01)
    lines = file.getvalue().splitlines()
    assert len(lines) >= 2
    assert lines[-1] == "answer: 0/3 items · 0 calls"
    assert "\x1b" not in file.getvalue()


def test_a_terminal_has_room_to_echo_what_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    with Progress("a workflow of a long name", file) as progress:
        progress(MapOpened(3, is_nested=False))
        for source in ("engine", "merged", "memo", "earlier"):
            progress(settled(source))
        deadline_s = time.monotonic() + 60
        while "calls" not in file.getvalue() and time.monotonic() < deadline_s:
            time.sleep(0.01)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).split("\n")
    drawn = [line.rpartition("\r")[2] for line in lines]
    assert max(map(len, drawn)) == 26, "a ^C after it stays on its line, so that all can be erased"


def test_nothing_is_printed_by_a_quick_run() -> None:
    file = io.StringIO()
    with Progress("answer", file):
        pass
    assert file.getvalue() == ""


def test_durations() -> None:
    assert [duration(s) for s in (0.04, 9.9, 12.3, 59.7, 61, 3_600, 7_500)] == [
        "0.0 s",
        "9.9 s",
        "12 s",
        "1 min 0 s",
        "1 min 1 s",
        "1 h 0 min",
        "2 h 5 min",
    ]
