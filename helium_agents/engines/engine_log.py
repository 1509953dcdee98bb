"""What the engine's processes print, kept for when something goes wrong.

A model that does not load makes vLLM print a hundred lines from several processes, of which one
says why. The processes write to a file in memory instead (`vllm_plugin` points them there), and
errors quote that line. A user who sets ``VLLM_LOGGING_LEVEL`` wants to see them: then they print.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

LOG_VARIABLE = "HELIUM_AGENTS_ENGINE_LOG"
"""Environment variable that tells the engine's processes where to write."""

_EXCEPTION_LINE = re.compile(
    r"^(?:.*\] )?((?:\w+\.)*\w*(?:Error|Exception)(?:: .*)?|Fatal Python error: .*)$", re.MULTILINE
)
_WORKER_IS_GONE = "died unexpectedly"
"""vLLM says so of a worker. What comes after it is consequence; nothing before it: a kill."""
_MOST_BYTES = 1 << 20


class EngineLog:
    """A file in memory that processes of ours can open by path as long as we live."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("helium-engine-log")

    @property
    def path(self) -> str:
        """Where our own processes find it."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def text(self) -> str:
        """What was written so far (the first MiB)."""
        if self._descriptor < 0:
            return ""
        return os.pread(self._descriptor, _MOST_BYTES, 0).decode("utf-8", "replace")

    def cause(self) -> str | None:
        """The line that names the first exception or crash: later ones are consequences of it.

        `None` where no process had anything to say, as when one is killed from outside.
        """
        found = _EXCEPTION_LINE.search(self.text().partition(_WORKER_IS_GONE)[0])
        return None if found is None else found[1]

    def close(self) -> None:
        """Drop it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def redirect_output() -> None:
    """In a process of the engine: write to the log from now on, if there is one."""
    path = os.environ.get(LOG_VARIABLE)
    if path is not None:
        with suppress(OSError):  # the parent is gone, or /proc is not there: print as before
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.dup2(descriptor, 1)  # where vLLM logs
            os.dup2(descriptor, 2)
            os.close(descriptor)
