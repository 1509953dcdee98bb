"""A trace that may still grow: what it tells so far, read on from where reading ended."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from helium_agents.errors import TraceError
from helium_agents.trace.read import TraceReader
from helium_agents.trace.run import TracedRun


class FollowedTrace:
    """Reads a trace as it grows; one that was replaced, from its beginning.

    Args:
        path: The file.

    Attributes:
        version: Counts how often there was something new.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._reader = TraceReader(path)
        self._identity: tuple[int, int] | None = None
        self._size = -1
        self.version = 0

    def read(self) -> TracedRun:
        """What it tells so far.

        Raises:
            TraceError: As `read_trace`.
        """
        try:
            status = os.stat(self._path)
        except OSError as error:
            raise self._unreadable(error) from error
        identity = status.st_dev, status.st_ino
        if identity != self._identity or status.st_size < self._reader.end:
            self._reader = TraceReader(self._path)
            self._identity, self._size = identity, -1
        if status.st_size != self._size:
            self._reader.read()
            self._size = status.st_size
            self.version += 1
        return self._reader.run

    @property
    def is_written(self) -> bool:
        """Whether a run has it open.

        Raises:
            TraceError: It is gone.
        """
        try:
            with open(self._path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            raise self._unreadable(error) from error
        return False

    def _unreadable(self, error: OSError) -> TraceError:
        return TraceError(f"the trace {self._path} cannot be read: {error.strerror}")
