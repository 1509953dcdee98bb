"""`TraceFile`: where a trace is kept, checked before anything runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from helium_agents.errors import TraceError
from helium_agents.trace.chunks import HEADER, check_header, chunks_in


@dataclass(frozen=True)
class TraceFile:
    """Where a session keeps its trace, and how.

    Args:
        path: The file. It is readable by its owner alone, since prompts are in clear in it.
        content: Whether the texts of prompts and answers are kept; their token ids are always.
        overwrite: Replace the trace that is there.
        resume: Append to the trace that is there; where nothing is, begin.
    """

    path: str | Path
    content: bool = True
    overwrite: bool = False
    resume: bool = False

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
            raise TraceError(
                f"the trace {self.path} is there already: name another file, or give "
                "overwrite=True to replace it or resume=True to append to it"
            )

    def open(self) -> int:
        """A file descriptor, for what is appended.

        Raises:
            TraceError: See `check`; or the file cannot be made.
        """
        self.check()
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        try:
            end = self._end() if self.resume else 0
            flags |= 0 if self.resume or self.overwrite else os.O_EXCL
            file = os.open(self.path, flags, 0o600)
            os.ftruncate(file, end)  # also what a killed run had begun to write
            os.lseek(file, end, os.SEEK_SET)
            if not end:
                write_all(file, HEADER)
        except OSError as error:
            why = error.strerror
            raise TraceError(f"the trace {self.path} cannot be written: {why}") from error
        return file

    def _check_replaceable(self) -> None:
        """See that what is there is a trace, and not somebody's rows."""
        try:
            with open(self.path, "rb") as file:
                if file.read(1):
                    file.seek(0)
                    check_header(file, str(self.path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise TraceError(f"the trace {self.path} cannot be read: {error.strerror}") from error

    def _end(self) -> int:
        """Where the last whole chunk of the trace that is there ends; 0 where there is none."""
        try:
            with open(self.path, "rb") as file:
                if not file.read(1):
                    return 0
                file.seek(0)
                check_header(file, str(self.path))
                end = file.tell()
                for chunk_end, _ in chunks_in(file, str(self.path)):
                    end = chunk_end
                return end
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise TraceError(f"the trace {self.path} cannot be read: {error.strerror}") from error


def write_all(file: int, data: bytes) -> None:
    """Write bytes, all of them."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
