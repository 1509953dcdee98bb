"""What an engine's scheduler tells of its steps: a file in memory whose size does not grow.

It has the sums that a correction of costs needs, windows of the last minutes for who wants to see
what the engine did, and when each of the last requests was begun and had been read.
"""

from __future__ import annotations

import os
import struct

from helium_agents.engines.request_times import (
    TIMES_BYTES,
    RequestTimes,
    read_times,
    write_times,
)
from helium_agents.engines.step_windows import WindowsWriter, read_windows
from helium_agents.optimizer.step_sums import NUM_SUMS, StepSums
from helium_agents.optimizer.step_window import StepWindow

STEPS_VARIABLE = "HELIUM_AGENTS_ENGINE_STEPS"
"""Environment variable that tells the scheduler where to write."""

_FORM = struct.Struct(
    f"{NUM_SUMS + 1}d"
)  # the number of steps comes again: else it is half written
_TIMES_AT = _FORM.size
_WINDOWS_AT = _TIMES_AT + TIMES_BYTES


class StepReport:
    """A file in memory that a process of ours can open by path as long as we live."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("helium-engine-steps")

    @property
    def path(self) -> str:
        """Where our own processes find it."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def read(self) -> StepSums | None:
        """The sums as they were written last; `None` where none were, or half of them just now."""
        if self._descriptor < 0:
            return None
        content = os.pread(self._descriptor, _FORM.size, 0)
        if len(content) < _FORM.size:
            return None
        *values, again = _FORM.unpack(content)
        return StepSums(values) if values[0] == again != 0.0 else None

    def windows(self, since_s: float) -> list[StepWindow]:
        """The windows of steps that ended after a time, in order; of the last minutes at most."""
        return [] if self._descriptor < 0 else read_windows(self._descriptor, _WINDOWS_AT, since_s)

    def times_of(self, number: int) -> RequestTimes | None:
        """When a request was begun and had been read; `None` where nobody has told."""
        return None if self._descriptor < 0 else read_times(self._descriptor, _TIMES_AT, number)

    def close(self) -> None:
        """Drop it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class ReportWriter:
    """Writes into a report, in another process.

    Raises:
        OSError: It is not there.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY)
        self._windows = WindowsWriter(self._descriptor, _WINDOWS_AT)

    def write_sums(self, sums: StepSums) -> None:
        """Write the sums in place of those before."""
        values = sums.values
        os.pwrite(self._descriptor, _FORM.pack(*values, values[0]), 0)

    def add_window(self, window: StepWindow) -> None:
        """Add what a step was."""
        self._windows.add(window)

    def write_times(self, number: int, times: RequestTimes) -> None:
        """Write when a request was begun and had been read."""
        write_times(self._descriptor, _TIMES_AT, number, times)
