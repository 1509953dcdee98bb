"""The processes that a process started, directly or not, also once it is gone."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

_GONE = (0, 0, False)


class Family:
    """A process and all that descend from it.

    Descendants are known by their parents, and by a mark in their environment for those whose
    parents had gone before anybody looked. (A process that changes its title loses the mark.)

    Args:
        pid: The process; if it is gone already, only the mark tells.
        mark: A variable that it was started with, as ``NAME=value``.
    """

    def __init__(self, pid: int, mark: str) -> None:
        self._mark = mark.encode()
        self._members: dict[int, int] = {}  # and when they began: a number may come again
        with suppress(OSError):
            self._members[pid] = _parent_and_start(pid)[1]
        self.alive()

    def alive(self) -> list[int]:
        """Those that have not ended, zombies apart."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended, or may not be looked at
                pid = int(path.name)
                parent, start = _parent_and_start(pid)
                is_marked = self._mark in (path / "environ").read_bytes().split(b"\0")
                found[pid] = parent, start, is_marked
        num_known = -1
        while num_known < len(self._members):
            num_known = len(self._members)
            alive = [
                pid for pid, start in self._members.items() if found.get(pid, _GONE)[1] == start
            ]
            for pid, (parent, start, is_marked) in found.items():
                if is_marked or parent in alive:
                    self._members[pid] = start
        return alive

    def kill(self) -> list[str]:
        """End those that have not ended; their command lines."""
        killed = []
        for pid in self.alive():
            with suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                os.kill(pid, signal.SIGKILL)
                killed.append(title.decode(errors="replace").strip())
        return killed


def _parent_and_start(pid: int) -> tuple[int, int]:
    """Which process started a process, and when.

    Raises:
        OSError: There is no such process, or it is a zombie.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] == "Z":
        raise ProcessLookupError(pid)
    return int(fields[1]), int(fields[19])
