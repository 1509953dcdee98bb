"""The writer: an observer that keeps a session's events in a file.

The event loop only sets them aside. A thread makes a chunk of them each second, so that what is
lost with a killed process is what happened since; the loop waits for it only where the disk is so
slow that too much is set aside.
"""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections import deque
from collections.abc import Mapping
from importlib.metadata import version

from helium_agents.telemetry.events import Event
from helium_agents.trace.chunks import chunk_of
from helium_agents.trace.encode import KEPT, encoded
from helium_agents.trace.file import TraceFile, close, write_all

_EVERY_S = 1.0
"""What prompts share is written once in each chunk: shorter ones take more room."""

_CHUNK_EVENTS = 2_000
_MOST_EVENTS = 20_000
"""So many are set aside at most."""


class TraceWriter:
    """Keeps what it observes.

    Args:
        trace: Where.
        about: What identifies the run: its `run_id`, its `schedule`.

    Raises:
        TraceError: The file cannot be written, or is there already.
    """

    def __init__(self, trace: TraceFile, about: Mapping[str, object]) -> None:
        self._trace = trace
        self._events: deque[tuple[float, Event]] = deque()
        self._clock = asyncio.get_running_loop().time
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._has_warned = False
        self._file = trace.open()
        self._write_head(about)
        self._thread = threading.Thread(target=self._write, name="helium-trace", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Set an event aside."""
        if self._failure is not None:
            self._warn()
        elif isinstance(event, KEPT):
            self._events.append((self._clock(), event))
            while len(self._events) > _MOST_EVENTS and self._failure is None:
                time.sleep(0.001)

    async def close(self) -> None:
        """Write what is left."""
        self._closing.set()
        await asyncio.to_thread(self._thread.join)
        close(self._file)
        if self._failure is not None:
            self._warn()

    def _write_head(self, about: Mapping[str, object]) -> None:
        """A part of the run begins: which, and what its clock shows."""
        part = {
            "kind": "part",
            "t": self._clock(),
            "unix_s": time.time(),
            "version": version("helium_agents"),
            "content": self._trace.content,
            "work": dict(self._trace.work),
            **about,
        }
        self._write_chunk([], [part])

    def _write(self) -> None:
        while True:
            is_last = self._closing.wait(_EVERY_S)
            while self._events:
                num_events = min(len(self._events), _CHUNK_EVENTS)
                self._write_chunk([self._events.popleft() for _ in range(num_events)])
            if is_last:
                return

    def _write_chunk(
        self, events: list[tuple[float, Event]], records: list[dict[str, object]] | None = None
    ) -> None:
        if self._failure is not None:
            return
        try:
            content = encoded(events, has_content=self._trace.content)
            content["records"] = [*(records or ()), *content["records"]]
            write_all(self._file, chunk_of(content))
        except Exception as error:  # it is told in `_warn`
            self._failure = error

    def _warn(self) -> None:
        """Say once that the trace is not whole: no answer depends on it, so the run goes on."""
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"the trace {self._trace.path} ends here, since it cannot be written "
                f"({self._failure}); what came before can be read, and the run goes on",
                RuntimeWarning,
                stacklevel=2,
            )
