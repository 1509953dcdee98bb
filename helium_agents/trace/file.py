"""`TraceFile`: where a trace is kept, checked before anything runs, and by one run at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helium_agents.errors import TraceError
from helium_agents.trace.chunks import HEADER, check_header, chunks_in

_OTHER = "name another file, or remove it"


@dataclass(frozen=True)
class TraceFile:
    """Where a session keeps its trace, and how.

    Args:
        path: The file. It is readable by its owner alone, since prompts are in clear in it.
        content: Whether the texts of prompts, answers and errors are kept; token ids and the types
            of errors are always.
        overwrite: Replace the trace that is there.
        resume: Append to the trace that is there; where nothing is, begin.
        work: What identifies the work that is traced; kept in it, for `began_with`.
    """

    path: str | Path
    content: bool = True
    overwrite: bool = False
    resume: bool = False
    work: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """See that it can be begun, before anything is computed.

        Raises:
            TraceError: A file is there and must not be replaced, is no trace, or is damaged.
        """
        if self.overwrite and self.resume:
            raise TraceError(
                f"the trace {self.path} cannot be replaced and gone on with: give one of both"
            )
        if self.resume:
            self._end()
        elif self.overwrite:
            self._check_replaceable()
        elif Path(self.path).exists():
            self._check_replaceable()
            raise TraceError(
                f"the trace {self.path} is there already: name another file, or give "
                "overwrite=True to replace it or resume=True to append to it"
            )

    def open(self) -> int:
        """A file descriptor, for what is appended; nobody else writes until it is closed.

        Raises:
            TraceError: See `check`; the file cannot be made; or another run writes it.
        """
        self.check()
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        flags |= 0 if self.resume or self.overwrite else os.O_EXCL
        try:
            file = os.open(self.path, flags, 0o600)
            try:
                _lock(file)
                end = self._end() if self.resume else 0
                os.ftruncate(file, end)  # also what a killed run had begun to write
                os.lseek(file, end, os.SEEK_SET)
                if not end:
                    write_all(file, HEADER)
            except BaseException:
                os.close(file)
                raise
        except BlockingIOError as error:
            raise TraceError(
                f"another run is writing the trace {self.path}: wait for it, or name another file"
            ) from error
        except OSError as error:
            why = error.strerror
            raise TraceError(f"the trace {self.path} cannot be written: {why}") from error
        return file

    def began_with(self) -> Mapping[str, str] | None:
        """The `work` of the trace that is there; `None` where none has begun.

        Raises:
            TraceError: It is no trace, or is damaged.
        """
        for _, chunk in self._chunks():
            for record in chunk.get("records", ()):
                work: Mapping[str, str] = record.get("work", {})
                return work
        return None

    def _check_replaceable(self) -> None:
        """See that what is there is a trace, and not somebody's rows."""
        try:
            with open(self.path, "rb") as file:
                if file.read(1):
                    file.seek(0)
                    check_header(file, str(self.path), _OTHER)
        except FileNotFoundError:
            return
        except OSError as error:
            raise TraceError(f"the trace {self.path} cannot be read: {error.strerror}") from error

    def _end(self) -> int:
        """Where the last whole chunk of the trace that is there ends; 0 where there is none."""
        end = 0
        for end, _ in self._chunks():  # noqa: B007
            pass
        return end

    def _chunks(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The header, as an empty chunk, and the whole chunks, each with where it ends."""
        try:
            with open(self.path, "rb") as file:
                if not file.read(1):
                    return
                file.seek(0)
                check_header(file, str(self.path), _OTHER)
                yield file.tell(), {}
                yield from chunks_in(file, str(self.path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise TraceError(f"the trace {self.path} cannot be read: {error.strerror}") from error


def _lock(file: int) -> None:
    """Take the lock of a trace; who looks whether a run goes on has it for a moment."""
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.01)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def close(file: int) -> None:
    """Close a trace, also for processes that have inherited its file."""
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def write_all(file: int, data: bytes) -> None:
    """Write bytes, all of them."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
