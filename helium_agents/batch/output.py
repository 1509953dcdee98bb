"""The output file: whole lines in `NAME.part`, which becomes `NAME` when the run is finished.

Whoever finds `NAME` finds all of it, and beside it what it was made of. Whatever stops a run, the
lines so far are in `NAME.part`, and what else it needs to go on is in `NAME.run`. Resuming takes
the whole lines as they are, and drops what a kill or a power cut left of another.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel, ValidationError

from helium_agents.errors import InputError
from helium_agents.memo.run_log import RunLog


class MadeOf(BaseModel, frozen=True):
    """What decided the lines of a finished output, so that nobody goes on with it as other work.

    It is the hidden file `.NAME.made_of.json` beside it. The output's digest in it tells whether it
    is about the file that is there: a note that is left over, or an edited output, is found out.

    Args:
        run_id: The run that made it, under which more rows are computed.
        about: What identifies the work, as in the run log.
        source: The version of the workflow's source.
        num_rows: How many rows it has.
        num_failed: How many of its lines are errors.
        digest: The output's; empty until it is written.
    """

    run_id: str
    about: dict[str, str]
    source: str
    num_rows: int
    num_failed: int
    digest: str = ""

    @classmethod
    def read(cls, output: Path) -> MadeOf:
        """What a finished output was made of.

        Raises:
            InputError: Nothing is known of it.
        """
        path = _path_beside(output)
        try:
            made_of = cls.model_validate_json(path.read_bytes())
            reason = "it has been changed or replaced since it was finished"
            if made_of.digest == file_digest(output):
                return made_of
        except FileNotFoundError:
            reason = f"there is no {path}"
        except (OSError, ValidationError):
            reason = f"{path} cannot be read"
        raise InputError(
            f"nothing is known of how {output} was made ({reason}), so resume=True cannot tell "
            "whether it is what you ask for: choose another output=, or give overwrite=True to "
            "make it anew"
        )

    def write(self, output: Path, part: Path) -> None:
        """Note it beside an output whose lines are in `part`.

        Raises:
            InputError: The note cannot be written.
        """
        text = self.model_copy(update={"digest": file_digest(part)}).model_dump_json(indent=2)
        path = _path_beside(output)
        try:
            with path.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error


class Output:
    """Lines on their way to a file; a context manager.

    Leaving it without `finish` keeps `part`, if there is anything in it or a run to resume.

    Args:
        path: The file to make. A symbolic link is followed.
        overwrite: Whether an earlier output, or what an unfinished run left, may be replaced.
        resume: Whether to go on where an unfinished run was stopped, if there is one.

    Attributes:
        path: The file to make, as given.
        target: The same, with links followed.
        part: Where the lines are until then.
        run_path: Where the unfinished run keeps its log.
        num_lines: Lines written so far, an earlier part of the run included.

    Raises:
        InputError: The path cannot be written, or something is there already.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
        self.path = path
        self.target = Path(os.path.realpath(path)) if path.is_symlink() else path
        self.part = self.target.with_name(f"{self.target.name}.part")
        self.run_path = self.part.with_suffix(".run")
        self.num_lines = 0
        self._overwrites = overwrite
        self._resumes = resume
        self._fd = -1
        self._check()

    def __enter__(self) -> Output:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        if not (self._overwrites or self._resumes):
            flags |= os.O_EXCL
        try:
            self._fd = os.open(self.part, flags, 0o666)
        except FileExistsError:  # made since we looked
            raise self._unfinished() from None
        except OSError as error:
            raise InputError(f"cannot write {self.part}: {error.strerror}") from error
        if not self._lock():
            self._close()
            raise InputError(
                f"another run is writing {self.part}: wait for it, or choose another output="
            )
        if not self._resumes:
            os.ftruncate(self._fd, 0)
        return self

    @property
    def is_finished(self) -> bool:
        """Whether the run that is to be resumed had come to its end."""
        if not (self._resumes and self.target.exists()):
            return False
        # a run that was killed before it began has left no more than an empty part
        return not self.has_lines and not (self.part.exists() and RunLog.is_in(self.run_path))

    @property
    def has_lines(self) -> bool:
        """Whether there are lines of a run that did not finish."""
        return self.part.exists() and self.part.stat().st_size > 0

    def read_lines(self) -> Iterator[bytes]:
        """The whole lines of the run that is resumed; what follows them is cut off at the end."""
        end = 0
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                self.num_lines += 1
                yield line
        os.ftruncate(self._fd, end)
        os.lseek(self._fd, end, os.SEEK_SET)

    def write(self, line: str) -> None:
        """Append a line.

        Raises:
            InputError: The file cannot be written (its disk is full).
        """
        data = f"{line}\n".encode()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:  # half a line is dropped by who resumes
            raise InputError(f"cannot write {self.part}: {error.strerror}") from error
        self.num_lines += 1

    def finish(self, made_of: MadeOf) -> None:
        """Make the file durable, note what it was made of, and give it its name.

        Raises:
            InputError: The note cannot be written.
        """
        os.fsync(self._fd)
        made_of.write(self.target, self.part)
        os.replace(self.part, self.target)
        directory = os.open(self.target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
            self._close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._fd < 0:
            return
        if self.has_lines:
            os.fsync(self._fd)
        elif not self.run_path.exists():
            self.part.unlink(missing_ok=True)
        self._close()

    def _lock(self) -> bool:
        """Whether the file is ours alone, and still the one that `part` names."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self._fd), os.stat(self.part))
        except OSError:  # held by another run, which may have given the file its name since
            return False

    def _close(self) -> None:
        os.close(self._fd)  # and with it the lock
        self._fd = -1

    def _check(self) -> None:
        target, parent = self.target, self.target.parent
        if not parent.is_dir():
            raise InputError(f"there is no directory {parent} for the output: make it first")
        if target.exists() and not target.is_file():
            raise InputError(f"the output {self.path} is not a regular file: choose another one")
        if not os.access(parent, os.W_OK):
            raise InputError(f"the directory {parent} may not be written: choose another output=")
        if self._overwrites or self._resumes:
            return
        if target.exists():
            raise InputError(
                f"{self.path} exists: add overwrite=True to replace it, or choose another output="
            )
        if self.part.exists():
            raise self._unfinished()

    def _unfinished(self) -> InputError:
        return InputError(
            f"{self.part} holds the rows of a run that did not finish: add resume=True to go on "
            "with it, or overwrite=True to start over"
        )


def file_digest(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _path_beside(output: Path) -> Path:
    return output.with_name(f".{output.name}.made_of.json")
