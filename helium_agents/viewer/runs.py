"""The runs that a page shows: read from their traces, again where these grow, and worked out."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from helium_agents.diagnose.compare_runs import compare_runs
from helium_agents.trace.follow import FollowedTrace
from helium_agents.viewer.analysis import MOST_CALLS, Analysis, analyzed
from helium_agents.viewer.columns import content_of
from helium_agents.viewer.document import document_of

_SPARED = 10
"""While a run goes on, so many times as long as working it out took passes before that is done
again: its machine has other work."""


class ViewedRuns:
    """Traces as the page's data. Any thread may ask; one at a time reads.

    Args:
        paths: One trace, or two to be compared, the earlier one first.
        rows: Items to show in any case, by their position in the input.
        most_calls: About so many calls of each are shown one by one.
    """

    def __init__(
        self, paths: Sequence[Path], *, rows: Collection[int] = (), most_calls: int = MOST_CALLS
    ) -> None:
        self._viewed = [_ViewedRun(path, rows, most_calls) for path in paths]
        self._names = _names(paths)
        self._lock = threading.Lock()

    def tag(self, name: str) -> str:
        """What changes when the data of a name do.

        Raises:
            TraceError: A trace cannot be read.
        """
        with self._lock:
            return "-".join(each.tag() for each in self._viewed)

    def get(self, name: str) -> Any:
        """The data of a name: "runs", "run-0", "content-0", "comparison".

        Raises:
            KeyError: There are none.
            TraceError: A trace cannot be read.
        """
        if name not in self.every:
            raise KeyError(name)
        with self._lock:
            if name == "runs":
                return self._names
            if name == "comparison":
                before, after = (each.analysis().run for each in self._viewed)
                return asdict(compare_runs(before, after))
            kind, _, number = name.partition("-")
            viewed = self._viewed[int(number)]
            if kind == "content":
                return content_of(viewed.analysis())
            title = self._names[int(number)]
            return document_of(viewed.analysis(), title, is_running=viewed.is_running())

    @property
    def has_content(self) -> bool:
        """Whether any of them was traced with its prompts and answers."""
        with self._lock:
            runs = [each.analysis().run for each in self._viewed]
        return any(part.has_content for run in runs for part in run.parts)

    @property
    def every(self) -> list[str]:
        """All names."""
        numbers = range(len(self._viewed))
        found = ["runs", *(f"run-{at}" for at in numbers), *(f"content-{at}" for at in numbers)]
        return found + ["comparison"] * (len(self._viewed) == 2)


class _ViewedRun:
    """A trace and what was worked out of it."""

    def __init__(self, path: Path, rows: Collection[int], most_calls: int) -> None:
        self._trace = FollowedTrace(path)
        self._rows = rows
        self._most_calls = most_calls
        self._analysis: Analysis | None = None
        self._version = 0
        self._next_s = 0.0

    def analysis(self) -> Analysis:
        """What is known of the run, anew where there is more and it is time."""
        is_due = not self.is_running() or time.monotonic() >= self._next_s
        if self._analysis is None or is_due:
            run = self._trace.read()
            if self._analysis is None or self._version != self._trace.version:
                begun_s = time.monotonic()
                self._analysis = analyzed(run, rows=self._rows, most_calls=self._most_calls)
                self._version = self._trace.version
                ended_s = time.monotonic()
                self._next_s = ended_s + _SPARED * (ended_s - begun_s)
        return self._analysis

    def is_running(self) -> bool:
        return self._trace.is_written

    def tag(self) -> str:
        self.analysis()
        return f"{self._version}{'r' if self.is_running() else 's'}"


def _names(paths: Sequence[Path]) -> list[str]:
    """What a person calls each: its file, with its folder where that is needed to tell them."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    return [os.path.join(path.absolute().parent.name, path.name) for path in paths]
