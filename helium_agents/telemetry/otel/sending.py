"""`Sender`: has batches of spans exported in a thread of its own, and counts what arrives."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from helium_agents.telemetry.otel.records import Told, Whole

_LOOK_S = 0.1


class Outcome(NamedTuple):
    """What became of a batch: how many of it were not taken, and why, as far as is known."""

    num_lost: int
    reason: str = ""


class Exporter(Protocol):
    """Sends spans to a collector."""

    def export(self, spans: Sequence[Whole]) -> Outcome:
        """Send a batch, again where that may help."""
        ...


class Reporter:
    """Tells the run what became of spans, a line of JSON each.

    Args:
        file: Where the run listens.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self.num_delivered = self.num_lost = 0
        self._trouble, self._is_down = "", False

    def complain(self, trouble: str, *, is_down: bool = True) -> None:
        """Tell that something does not work.

        Args:
            trouble: What, for a person.
            is_down: Whether the collector does not answer at all.
        """
        self._trouble, self._is_down = trouble, is_down
        self.report()

    def count(self, num_spans: int, outcome: Outcome) -> None:
        """Tell what became of a batch."""
        self.num_delivered += num_spans - outcome.num_lost
        self.num_lost += outcome.num_lost
        if not outcome.num_lost:
            self._trouble, self._is_down = "", False
        elif outcome.reason:
            self._trouble = outcome.reason
        self.report()

    def report(self) -> None:
        """Tell it, unless nobody listens any more."""
        told = Told(self.num_delivered, self.num_lost, self._trouble, self._is_down)
        try:
            os.write(self._file, msgspec.json.encode(told) + b"\n")
        except OSError:
            return


class Sender:
    """Sends batches one after the other.

    Args:
        exporter: Sends one.
        reporter: Told of each.
        num_waiting: Most batches that wait for it.
    """

    def __init__(self, exporter: Exporter, reporter: Reporter, num_waiting: int) -> None:
        self._exporter = exporter
        self._reporter = reporter
        self._batches = queue.Queue[Sequence[Whole] | None](num_waiting)
        self.news_s = time.monotonic()
        """When a batch was answered last."""
        # a collector that does not answer must not keep the process
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, batch: Sequence[Whole] | None, gives_up: Callable[[], bool]) -> bool:
        """Hand over a batch, or say by `None` that none follows; whether there was room.

        Args:
            batch: What to send.
            gives_up: Asked while there is none.
        """
        while not gives_up():
            try:
                self._batches.put(batch, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False

    def finish(self, gives_up: Callable[[], bool]) -> None:
        """Wait until all is sent."""
        if self.put(None, gives_up):
            while self._thread.is_alive() and not gives_up():
                self._thread.join(_LOOK_S)
        if self._thread.is_alive():
            self._reporter.complain("the collector did not answer in time")

    def _run(self) -> None:
        while batch := self._batches.get():
            try:
                outcome = self._exporter.export(batch)
            except Exception as error:  # the next batch may be another
                outcome = Outcome(len(batch), f"{type(error).__name__}: {error}")
            self.news_s = time.monotonic()
            self._reporter.count(len(batch), outcome)
