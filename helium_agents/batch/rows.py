"""The rows of an input file: JSON Lines, checked as a whole before a run and then streamed.

The file is read twice. Checking a row costs microseconds and answering it seconds, so a mistake in
the last line is worth finding before the first is answered; and streaming keeps memory flat
however long the file is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from helium_agents.batch.workflow import Workflow
from helium_agents.errors import InputError, shown

_BOM = b"\xef\xbb\xbf"
_MAX_FAULTS = 3


class Rows:
    """The rows that a workflow gets, in the order of the file.

    Args:
        path: A file with one JSON value a line; empty lines are skipped.
        workflow: Says what a row must be.
        limit: Take only this many.

    Raises:
        InputError: The file cannot be read, or a line does not fit; the message names the line.
    """

    def __init__(self, path: Path, workflow: Workflow, limit: int | None = None) -> None:
        self.path = path
        self._workflow = workflow
        self._row_type = workflow.row_type or TypeAdapter(Any)
        self._limit = limit
        if path.exists() and not path.is_file():
            raise InputError(
                f"the input {path} is not a regular file: give a file of rows (it is read twice, "
                "once to check it)"
            )
        try:
            self._num_rows = sum(1 for _ in self)
        except OSError as error:
            raise InputError(f"cannot read the input {path}: {error.strerror}") from error

    def __len__(self) -> int:
        return self._num_rows

    def __iter__(self) -> Iterator[Any]:
        for number, line in islice(_numbered_lines(self.path), self._limit):
            try:
                row = self._row_type.validate_json(line)
            except ValidationError as error:
                raise InputError(self._explain(number, line, error)) from None
            yield row

    def _explain(self, number: int, line: bytes, error: ValidationError) -> str:
        faults = error.errors(include_url=False, include_context=False)
        place = f"{self.path}:{number}"
        if faults[0]["type"] == "json_invalid":
            reason = (
                faults[0]["msg"].removeprefix("Invalid JSON: ").replace("line 1 column", "column")
            )
            hint = "each line must be one JSON value"
            if number == 1 and line.lstrip()[:1] in b"[{":
                hint += f". One JSON array becomes such lines by: jq -c '.[]' {self.path}"
            return f"{place} is not valid JSON ({reason}): {hint}"
        lines = [
            f"{place} does not fit `{self._workflow.parameter}` of {self._workflow.name}:",
            *(f"  {_explain_fault(fault)}" for fault in faults[:_MAX_FAULTS]),
        ]
        if len(faults) > _MAX_FAULTS:
            lines.append(f"  and {len(faults) - _MAX_FAULTS} more")
        return "\n".join([*lines, "correct the line, or the annotation"])


def place_of_row(path: Path, index: int) -> str:
    """A row as a person counts: ``row 5 (line 6 of rows.jsonl)``.

    Args:
        path: The file of rows.
        index: The row's, from 0.
    """
    number, _ = next(islice(_numbered_lines(path), index, None))
    return f"row {index + 1:,} (line {number:,} of {path})"


def _explain_fault(fault: Any) -> str:
    place = ".".join(map(str, fault["loc"]))
    got = "" if fault["type"] == "missing" else f" (got {shown(fault['input'], 60)})"
    return f"{place + ': ' if place else ''}{fault['msg']}{got}"


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(_BOM)
            line = line.strip()
            if line:
                yield number, line
