"""Live progress of a session on a terminal, or a line now and then elsewhere; an observer.

Events only move counters. A thread of its own draws them, so that the display lives while an
engine is starting or a workflow keeps the event loop busy.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from helium_agents.telemetry.events import EngineStarted, EngineStarting, Event, MapOpened
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
        file: Where to show it, usually ``sys.stderr``.
        num_done: Items that an earlier part of the run has answered: they count as done, and the
            session does not know of them.
        clock: Seconds that only grow.
        plain_interval_s: Seconds between lines where `file` is no terminal.
    """

    def __init__(
        self,
        name: str,
        file: TextIO,
        *,
        num_done: int = 0,
        clock: Callable[[], float] = time.monotonic,
        plain_interval_s: float = _PLAIN_INTERVAL_S,
    ) -> None:
        self.summary = Summary()
        self._name = name
        self._clock = clock
        self._start_s = clock()
        self._num_done = num_done
        self._num_items: int | None = None
        self._status = "preparing"
        self._status_since_s = self._start_s
        self._history: deque[tuple[float, int, int]] = deque()
        self._console = Console(file=file, highlight=False)
        self._is_live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._interval_s = _DRAW_INTERVAL_S if self._is_live else plain_interval_s
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._draw_until_done, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        if self._is_live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._thread.join()
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take note of one event."""
        self.summary(event)
        match event:
            case MapOpened(num_items=num_items, is_nested=False):
                self._num_items = None if num_items is None else self._num_done + num_items
                self.set_status("")
            case EngineStarting(model=model):
                self.set_status(f"loading {model}")
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
        parts = [f"{self._name}: {self._items(' items')}", *self._counts()]
        eta = self._eta()
        if eta:
            parts.append(f"eta {eta}")
        if self._status:
            parts.append(self._shown_status())
        return " · ".join(parts)

    # --- drawing -------------------------------------------------------------------------------

    def _draw_until_done(self) -> None:
        while not self._is_done.wait(self._interval_s):
            self.remember_rate()
            if self._is_live:
                self._live.update(self._picture(), refresh=True)
            else:
                self._console.print(self.line(), soft_wrap=True, markup=False)

    def _picture(self) -> Constrain:
        bar = ProgressBar(total=self._num_items, completed=self._num_closed, width=None)
        first = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None, None):
            first.add_column(ratio=ratio, no_wrap=True)
        eta = self._eta()
        first.add_row(self._name, bar, self._items(), f"eta {eta}" if eta else "")
        second = Text(" · ".join(self._counts()), style="dim", no_wrap=True, overflow="ellipsis")
        lines: list[RenderableType] = [first, second]
        if self._status:
            status = self._shown_status()
            lines.append(Text(status, style="yellow", no_wrap=True, overflow="ellipsis"))
        return Constrain(Group(*lines), max(1, self._console.width - _ECHO_COLUMNS))

    @property
    def _num_closed(self) -> int:
        return self._num_done + self.summary.num_items

    def _items(self, unit: str = "") -> str:
        total = "" if self._num_items is None else f"/{self._num_items:,}"
        failed = self.summary.num_failed_items
        text = f"{self._num_closed:,}{total}{unit}"
        return f"{text} ({failed:,} failed)" if failed else text

    def _counts(self) -> list[str]:
        summary, counts = self.summary, self.summary.as_dict()
        parts = [f"{summary.num_calls:,} calls"]
        _, tokens_per_s = self._rates()
        if tokens_per_s:
            parts.append(f"{tokens_per_s:,.0f} tok/s")
        if counts["merged"]:
            parts.append(f"{counts['merged']:,} merged")
        if counts["memo_hits"]:
            parts.append(f"{counts['memo_hits']:,} from memo")
        if counts["earlier_hits"]:
            parts.append(f"{counts['earlier_hits']:,} answered earlier")
        if summary.prompt_tokens:
            parts.append(f"prefix hits {summary.prefix_hit_rate:.0%}")
        return parts

    def _shown_status(self) -> str:
        seconds = self._clock() - self._status_since_s
        return f"{self._status}... {seconds:.0f} s" if seconds >= 1 else f"{self._status}..."

    # --- rates ---------------------------------------------------------------------------------

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

    def _eta(self) -> str:
        items_per_s, _ = self._rates()
        if self._num_items is None or not items_per_s:
            return ""
        return duration((self._num_items - self._num_closed) / items_per_s)


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
