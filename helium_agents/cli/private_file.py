"""A file that a command makes of a trace: its owner's alone, since prompts are in clear in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from helium_agents.errors import InputError


@contextmanager
def private_file(
    path: Path, *, overwrite: bool, made_of: Sequence[Path | None]
) -> Iterator[BinaryIO]:
    """A file to be written; one that cannot be written to its end is removed.

    Args:
        path: Where.
        overwrite: Replace the file that is there.
        made_of: What must not be replaced.

    Raises:
        InputError: The file is there already, is one of `made_of`, or cannot be written.
    """
    if any(source is not None and path.exists() and path.samefile(source) for source in made_of):
        raise InputError(f"{path} is the trace itself: name another file")
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if overwrite else os.O_EXCL)
    is_regular = False
    try:
        with open(os.open(path, flags, 0o600), "wb") as file:
            is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            if is_regular:
                os.fchmod(file.fileno(), 0o600)
            yield file
    except FileExistsError as error:
        raise InputError(
            f"{path} is there already: name another file, or give --overwrite"
        ) from error
    except OSError as error:
        if is_regular:
            path.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
