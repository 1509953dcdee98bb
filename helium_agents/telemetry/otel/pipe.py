"""The run's end of the pipe to the helper process.

Records are encoded, set aside, and written together a few times a second, as far as the pipe takes
them. Nothing here waits for the helper while the run goes on: what it is too slow for is kept up to
a bound. Beyond it spans that begin are dropped whole, and counted: the helper hears of the end of
all that it has heard of the beginning of.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from helium_agents.telemetry.otel.context import Place
from helium_agents.telemetry.otel.records import (
    LENGTH_BYTES,
    Began,
    Closed,
    Ended,
    Record,
    Told,
    well_formed,
)

_ARRAY = b"\xdd"  # of MessagePack: four bytes tell how many values follow

_EVERY_S = 0.1
_MOST_TOGETHER, _MOST_TOGETHER_BYTES = 512, 2**18
_MOST_BYTES = 8 * 2**20

_START_S, _CLOSE_S, _CLOSE_WHEN_DOWN_S, _MOST_CLOSE_S = 15.0, 6.0, 1.0, 35.0
"""How long the session's end waits: for the helper to start; for a collector that does not answer,
which the helper itself gives up a little earlier; for one that is known not to; for all at most."""

_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; "
    "from helium_agents.telemetry.otel.helper import main; main({parent})"
)


class Pipe:
    """Sends records to a helper process, which it starts.

    Args:
        environ: The environment of the helper, which says where spans go.
        place: What a person calls the collector.
    """

    def __init__(self, environ: Mapping[str, str], place: str) -> None:
        self._place = place
        self._loop = asyncio.get_running_loop()
        program = _PROGRAM.format(path=sys.path, parent=os.getpid())
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,  # signals to the run's group are not for it
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        self._loop.add_reader(self._stdout.fileno(), self._hear)
        self._encode_into = msgspec.msgpack.Encoder().encode_into
        self._records: list[Record] = []  # set aside
        self._timer: asyncio.TimerHandle | None = None
        self._backlog = bytearray()  # encoded
        self._is_writing = False  # once the pipe takes more
        self._is_full = self._is_closing = self._is_gone = self._has_warned = False
        self._dropped: set[int] = set()  # spans that have begun and not ended
        self._has_news = asyncio.Event()
        self._heard, self._has_started, self._progress_s = b"", False, 0.0
        self._num_spans = self._num_answered = self.num_delivered = 0
        self._is_down, self._reason = False, ""

    def put(self, record: Record) -> None:
        """Set a record aside."""
        self._records.append(record)
        if len(self._records) >= _MOST_TOGETHER:
            self._send()
        elif self._timer is None:
            self._timer = self._loop.call_later(_EVERY_S, self._send)

    def traceparent(self, place: Place) -> str:
        """The ids are ours."""
        return place.traceparent

    async def close(self, end_ns: int) -> tuple[int, str]:
        """Send what is left, and wait a while until the helper has sent it on."""
        self.put(Closed(end_ns))
        self._is_closing = True
        self._send()
        start_s = self._loop.time()
        while not self._is_gone:
            self._has_news.clear()
            most_s = _CLOSE_WHEN_DOWN_S if self._is_down else _MOST_CLOSE_S
            quiet_s = _CLOSE_S if self._has_started else _START_S
            quiet_since_s = max(start_s, self._progress_s)
            try:
                async with asyncio.timeout_at(min(start_s + most_s, quiet_since_s + quiet_s)):
                    await self._has_news.wait()
            except TimeoutError:
                break
        await self._end()
        num_lost = self._num_spans - self.num_delivered
        if num_lost:
            self._reason = self._reason or "its helper process did not send them in time"
            self._warn()
        return num_lost, self._reason

    async def _end(self) -> None:
        """End the helper, if it has not."""
        if not self._is_gone:
            self._process.kill()
            self._lose("")
        self._loop.remove_reader(self._stdout.fileno())
        await asyncio.to_thread(self._process.wait)
        with suppress(BrokenPipeError):
            self._stdin.close()
        self._stdout.close()

    # --- to the helper -------------------------------------------------------------------------

    def _send(self) -> None:
        """Write what was set aside."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        records, self._records = self._records, []
        frame, num_records = bytearray(), 0
        for record in records:
            kept = self._kept(record)
            if kept is None:
                continue
            self._encode(kept, frame)
            num_records += 1
            if len(frame) >= _MOST_TOGETHER_BYTES:
                self._add(frame, num_records)
                frame, num_records = bytearray(), 0
        if num_records:
            self._add(frame, num_records)
        if not self._is_writing and not self._is_gone:
            self._write()

    def _kept(self, record: Record) -> Record | None:
        """What of a record is sent: nothing where its span is dropped."""
        if type(record) is Ended:
            self._num_spans += 1
            if self._dropped and record.span in self._dropped:
                self._dropped.remove(record.span)
                return None
            if self._is_full and record.answer is not None:
                record = replace(record, answer=replace(record.answer, said=None))
        elif self._is_full and type(record) is Began:
            self._dropped.add(record.span)
            return None
        return None if self._is_gone else record

    def _encode(self, record: Record, frame: bytearray) -> None:
        num_bytes = len(frame)
        try:
            self._encode_into(record, frame, num_bytes)
        except UnicodeEncodeError:
            self._encode_into(well_formed(record), frame, num_bytes)

    def _add(self, frame: bytearray, num_records: int) -> None:
        """Let records wait to be written: as one array, preceded by its length."""
        head = _ARRAY + num_records.to_bytes(4, "big")
        self._backlog += (len(head) + len(frame)).to_bytes(LENGTH_BYTES, "big")
        self._backlog += head
        self._backlog += frame
        self._is_full = len(self._backlog) >= _MOST_BYTES

    def _write(self) -> None:
        """Write as much as the pipe takes; the rest as soon as it takes more."""
        try:
            num_bytes = os.write(self._stdin.fileno(), self._backlog)
        except BlockingIOError:
            num_bytes = 0
        except OSError:
            self._lose("its helper process has ended")
            return
        del self._backlog[:num_bytes]
        self._is_full = len(self._backlog) >= _MOST_BYTES
        if self._backlog and not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self._stdin.fileno(), self._write)
        elif not self._backlog:
            self._stop_writing()
            if self._is_closing:
                self._stdin.close()

    def _stop_writing(self) -> None:
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._stdin.fileno())

    def _lose(self, reason: str) -> None:
        """Nobody takes records any more."""
        self._is_gone = True
        self._is_full = False
        self._dropped.clear()
        self._reason = self._reason or reason
        self._stop_writing()
        self._backlog.clear()
        self._has_news.set()

    # --- from the helper -----------------------------------------------------------------------

    def _hear(self) -> None:
        """Take what the helper tells: lines of JSON, or that it has ended."""
        try:
            piece = os.read(self._stdout.fileno(), 2**16)
        except BlockingIOError:
            return
        if not piece:
            self._loop.remove_reader(self._stdout.fileno())
            self._lose("" if self._is_closing else "its helper process has ended")
            return
        *lines, self._heard = (self._heard + piece).split(b"\n")
        for line in lines:
            told = msgspec.json.decode(line, type=Told)
            if told.delivered + told.lost > self._num_answered or not self._has_started:
                self._num_answered = told.delivered + told.lost
                self._progress_s = self._loop.time()
                self._has_started = True
            self.num_delivered, self._is_down = told.delivered, told.is_down
            self._reason = told.trouble or self._reason
            if told.lost:
                self._warn()
        self._has_news.set()

    def _warn(self) -> None:
        """Say once that spans are lost: no answer depends on them, so the run goes on."""
        if not self._has_warned:
            self._has_warned = True
            reason = self._reason.rstrip(" .")
            warnings.warn(
                f"spans cannot be sent to {self._place}: {reason}. The run goes on without "
                "them, and its summary says how many are lost",
                RuntimeWarning,
                stacklevel=2,
            )
