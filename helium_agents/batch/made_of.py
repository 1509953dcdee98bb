"""What a finished output was made of, so that nobody goes on with it as if it were other work.

It lies beside the output as the hidden file `.NAME.made_of.json`. The output's digest in it tells
whether it is about the file that is there: a note that is left over, or an output that was edited,
is found out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from helium_agents.errors import InputError
from helium_agents.memo.run_log import differences


class MadeOf(BaseModel, frozen=True):
    """What decides the lines of an output.

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

    def check_same(self, output: Path, about: Mapping[str, str], source: str | None) -> None:
        """Refuse other work.

        Args:
            output: The output, for the message.
            about: What identifies the work that is asked for.
            source: The version of its workflow's source; `None` if another version will do.

        Raises:
            InputError: Something differs; the message says what.
        """
        found = differences(self.about, about)
        if source not in (None, self.source):
            found.append("its workflow's source has changed")
        if found:
            raise InputError(
                f"{output} is of other work than is asked for: {'; '.join(found)}. Ask for the "
                "same, choose another output=, or give overwrite=True in place of resume=True to "
                "make it anew"
            )


def file_digest(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _path_beside(output: Path) -> Path:
    return output.with_name(f".{output.name}.made_of.json")
