"""The last windows of an engine's steps, in a part of a file whose size is fixed.

One process writes, others read whenever they like: each window has its beginning at both ends, and
where these differ it was read while it was being written, and counts as not there.
"""

from __future__ import annotations

import os
import struct

from helium_agents.optimizer.step_window import StepWindow, is_same_window, joined

_SLOT = struct.Struct(f"{len(StepWindow._fields) + 1}d")
_NUM_SLOTS = 2048  # more than three minutes, where requests take that long


class WindowsWriter:
    """Writes windows.

    Args:
        descriptor: A file.
        offset: Where in it.
    """

    def __init__(self, descriptor: int, offset: int) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._number = 0
        self._last: StepWindow | None = None

    def add(self, window: StepWindow) -> None:
        """Write one, together with the last where both end in the same tenth of a second."""
        last = self._last
        if last is not None:
            if is_same_window(last, window):
                window = joined(last, window)
            else:
                self._number = (self._number + 1) % _NUM_SLOTS
        self._last = window
        place = self._offset + self._number * _SLOT.size
        os.pwrite(self._descriptor, _SLOT.pack(*window, window.begin_s), place)


def read_windows(descriptor: int, offset: int, since_s: float) -> list[StepWindow]:
    """Those that ended after a time, in order."""
    content = os.pread(descriptor, _NUM_SLOTS * _SLOT.size, offset)
    whole = memoryview(content)[: len(content) // _SLOT.size * _SLOT.size]
    slots = _SLOT.iter_unpack(whole)
    return sorted(
        StepWindow(*slot[:-1]) for slot in slots if slot[1] > since_s and slot[0] == slot[-1]
    )
