"""What an engine's scheduler tells of its steps: a file in memory whose size does not grow.

It has the sums that a correction of costs needs, when each of the last requests was begun and had
been read, and windows of the last minutes for who wants to see what the engine did.

One process writes, others read whenever they like: what is written has its first number at its end
again, and where these differ it was read while it was being written, and counts as not there.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from helium_agents.optimizer.step_cost import StepCost
from helium_agents.optimizer.step_sums import NUM_SUMS, StepSums
from helium_agents.optimizer.step_window import StepWindow, is_same_window, joined

STEPS_VARIABLE = "HELIUM_AGENTS_ENGINE_STEPS"
"""Environment variable that tells the scheduler where to write."""

_MORE_STEPS = 17 / 16

_SUMS = struct.Struct(f"{NUM_SUMS + 1}d")

_TIMES = struct.Struct("4d")
_NUM_TIMES = 8192
"""What so many requests came after is overwritten, and counts as not known."""

_WINDOW = struct.Struct(f"{len(StepWindow._fields) + 1}d")
_NUM_WINDOWS = 2048
"""More than three minutes, where requests take that long."""

_TIMES_AT = _SUMS.size
_WINDOWS_AT = _TIMES_AT + _NUM_TIMES * _TIMES.size


class RequestTimes(NamedTuple):
    """Times by the event loop's clock.

    Args:
        begun_s: When the engine began to read the prompt.
        read_s: When it had read it, and had the first token of the answer.
    """

    begun_s: float
    read_s: float


class StepReport:
    """A file in memory that a process of ours can open by path as long as we live."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("helium-engine-steps")
        self._corrected: tuple[float, StepCost, StepCost] | None = None

    @property
    def path(self) -> str:
        """Where our own processes find it."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def read(self) -> StepSums | None:
        """The sums as they were written last; `None` where none were, or half of them just now."""
        content = self._bytes(_SUMS.size, 0)
        if len(content) < _SUMS.size:
            return None
        *values, again = _SUMS.unpack(content)
        return StepSums(values) if values[0] == again != 0.0 else None

    def corrected(self, cost: StepCost) -> StepCost:
        """A cost as the steps correct it, looked at again when there are a sixteenth more."""
        sums = self.read()
        if sums is None:
            return cost
        last = self._corrected
        if last is None or last[1] != cost or sums.num_steps >= _MORE_STEPS * last[0]:
            last = self._corrected = sums.num_steps, cost, sums.corrected(cost)
        return last[2]

    def times_of(self, number: int) -> RequestTimes | None:
        """When a request was begun and had been read; `None` where nobody has told."""
        content = self._bytes(_TIMES.size, _times_at(number))
        if len(content) < _TIMES.size:
            return None
        found, begun_s, read_s, again = _TIMES.unpack(content)
        return RequestTimes(begun_s, read_s) if found == again == number else None

    def windows(self, since_s: float) -> list[StepWindow]:
        """The windows of steps that ended after a time, in order; of the last minutes at most."""
        content = self._bytes(_NUM_WINDOWS * _WINDOW.size, _WINDOWS_AT)
        whole = memoryview(content)[: len(content) // _WINDOW.size * _WINDOW.size]
        found = _WINDOW.iter_unpack(whole)
        return sorted(
            StepWindow(*each[:-1]) for each in found if each[1] > since_s and each[0] == each[-1]
        )

    def close(self) -> None:
        """Drop it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _bytes(self, size: int, place: int) -> bytes:
        return b"" if self._descriptor < 0 else os.pread(self._descriptor, size, place)


class ReportWriter:
    """Writes into a report, in another process.

    Raises:
        OSError: It is not there.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY)
        self._last: StepWindow | None = None
        self._place = 0

    def write_sums(self, sums: StepSums) -> None:
        """Write the sums in place of those before."""
        values = sums.values
        os.pwrite(self._descriptor, _SUMS.pack(*values, values[0]), 0)

    def write_times(self, number: int, times: RequestTimes) -> None:
        """Write when a request, which has a number from 1 on, was begun and had been read."""
        os.pwrite(self._descriptor, _TIMES.pack(number, *times, number), _times_at(number))

    def add_window(self, window: StepWindow) -> None:
        """Add what a step was, to the last one where both end in the same tenth of a second."""
        last = self._last
        if last is not None and is_same_window(last, window):
            window = joined(last, window)
        elif last is not None:
            self._place = (self._place + 1) % _NUM_WINDOWS
        self._last = window
        data = _WINDOW.pack(*window, window.begin_s)
        os.pwrite(self._descriptor, data, _WINDOWS_AT + self._place * _WINDOW.size)


def _times_at(number: int) -> int:
    return _TIMES_AT + number % _NUM_TIMES * _TIMES.size
