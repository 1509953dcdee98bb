"""Live progress of a session on a terminal or in a notebook, or a line now and then; an observer.

Events only move counters. A thread of its own draws them, so that the display lives while an
engine is starting or a workflow keeps the event loop busy.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from helium_agents.telemetry.events import EngineStarted, EngineStarting, Event, MapOpened
from helium_agents.telemetry.notebook import CellOutput, is_in_notebook
from helium_agents.telemetry.summary import Summary

_DRAW_INTERVAL_S = 0.2
_PLAIN_INTERVAL_S = 10.0
_ECHO_COLUMNS = 4
"""Left free at the right, or the ^C that a terminal echoes would begin a line that stays behind."""

_WINDOW_S = 30.0
"""Rates are over the last half minute: a batch whose first rows are remembered slows down later."""


class Progress:
    """Shows how far a session is; a context manager, and an observer for `Session(observers=)`.

    Args:
        name: What is running.
        file: Where to show it; by default in the output of a notebook's cell, or else on stderr.
        clock: Seconds that only grow.
        plain_interval_s: Seconds between lines where it is neither a notebook nor a terminal.
    """

    def __init__(
        self,
        name: str,
        file: TextIO | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        plain_interval_s: float = _PLAIN_INTERVAL_S,
    ) -> None:
        self.summary = Summary()
        self._name = name
        self._clock = clock
        self._num_done = 0
        self._num_items: int | None = None
        self.set_status("preparing")
        self._history: deque[tuple[float, int, int]] = deque()  # time, items, output tokens
        self._cell = CellOutput() if file is None and is_in_notebook() else None
        self._console = Console(file=file or sys.stderr, highlight=False, force_jupyter=False)
        is_live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._is_live = is_live and self._cell is None
        is_drawn = self._is_live or self._cell is not None
        self._interval_s = _DRAW_INTERVAL_S if is_drawn else plain_interval_s
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._draw_until_done, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        if self._is_live:
            self._live.start()
        self._draw_in_cell()  # this thread's cell is the one that is run
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._thread.join()
        self._live.stop()
        self._draw_in_cell()

    def __call__(self, event: Event) -> None:
        """Take note of one event."""
        self.summary(event)
        match event:
            case MapOpened(is_nested=False):
                self._num_items, self._num_done = event.num_items, event.num_done
                self.set_status("")
            case EngineStarting():
                self.set_status(f"loading {event.model}")
            case EngineStarted():
                self._history = deque()  # the time it took says nothing of the time to come
                self.set_status("")

    def set_status(self, status: str) -> None:
        """Say what is going on besides items; empty for nothing."""
        self._status, self._status_since_s = status, self._clock()

    def stopping(self) -> None:
        """Say that the user's wish to stop was heard."""
        self.set_status("stopping (again to stop at once)")

    def line(self) -> str:
        """Everything in one line of text."""
        summary, counts = self.summary, self.summary.as_dict()
        items_per_s, tokens_per_s = self._rates()
        num_closed, num_items = self._num_closed, self._num_items
        total = "" if num_items is None else f"/{num_items:,}"
        failed = f" ({summary.num_failed_items:,} failed)" if summary.num_failed_items else ""
        parts = [
            f"{self._name}: {num_closed:,}{total} items{failed}",
            f"{summary.num_calls:,} calls",
        ]
        if tokens_per_s:
            parts.append(f"{tokens_per_s:,.0f} tok/s")
        for count, text in (
            ("merged", "merged"),
            ("memo_hits", "from memo"),
            ("earlier_hits", "answered earlier"),
        ):
            if counts[count]:
                parts.append(f"{counts[count]:,} {text}")
        if summary.prompt_tokens:
            parts.append(f"prefix hits {summary.prefix_hit_rate:.0%}")
        if num_items is not None and items_per_s:
            parts.append(f"eta {duration((num_items - num_closed) / items_per_s)}")
        if self._status:
            seconds = self._clock() - self._status_since_s
            parts.append(f"{self._status}..." + (f" {seconds:.0f} s" if seconds >= 1 else ""))
        return " · ".join(parts)

    def remember_rate(self) -> None:
        """Note how far it is now, for the rates; done before each drawing."""
        now_s, history = self._clock(), self._history
        history.append((now_s, self.summary.num_items, self.summary.output_tokens))
        while now_s - history[0][0] > _WINDOW_S:
            history.popleft()

    def _rates(self) -> tuple[float, float]:
        """Items and computed output tokens per second."""
        history = self._history
        if len(history) < 2:
            return 0.0, 0.0
        (start_s, items, tokens), (end_s, last_items, last_tokens) = history[0], history[-1]
        seconds = end_s - start_s
        return (last_items - items) / seconds, (last_tokens - tokens) / seconds

    @property
    def _num_closed(self) -> int:
        return self._num_done + self.summary.num_items

    def _draw_until_done(self) -> None:
        while not self._is_done.wait(self._interval_s):
            self.remember_rate()
            if self._cell is not None:
                self._draw_in_cell()
            elif self._is_live:
                picture = Table.grid(expand=True)
                picture.add_row(ProgressBar(total=self._num_items, completed=self._num_closed))
                picture.add_row(Text(self.line(), style="dim"))
                width = max(1, self._console.width - _ECHO_COLUMNS)
                self._live.update(Constrain(picture, width), refresh=True)
            else:
                self._console.print(self.line(), soft_wrap=True, markup=False)

    def _draw_in_cell(self) -> None:
        if self._cell is not None:
            self._cell.show(self._num_closed, self._num_items, self.line())


def duration(seconds: float) -> str:
    """Seconds as a person reads them: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
