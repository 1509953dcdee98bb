"""The lines of an output: what stands in them, and which row one is of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from helium_agents.errors import InputError, ItemError, message_of
from helium_agents.graph.ref import Ref

_ERROR_START = b'{"error": {"type": '
_ERROR_FIELDS = {"type", "message", "item"}


class Lines:
    """How the results of a batch are written.

    In the order of the rows a line is a result, or what went wrong; otherwise each names its row.

    Args:
        num_rows: How many rows there are.
        is_ordered: Whether they are in the order of the rows.
    """

    def __init__(self, num_rows: int, *, is_ordered: bool) -> None:
        self._num_rows = num_rows
        self._is_ordered = is_ordered

    def of(self, index: int, value: str | ItemError) -> str:
        """The line of a row: its result as JSON text, or its failure."""
        if not isinstance(value, ItemError):
            return value if self._is_ordered else f'{{"item": {index}, "value": {value}}}'
        cause = value.__cause__
        assert cause is not None
        error = {"type": type(cause).__name__, "message": message_of(cause), "item": index}
        fields = {"error": error} if self._is_ordered else {"item": index, "error": error}
        # a lone surrogate in a message must not fail the run
        return json.dumps(fields, ensure_ascii=False).encode(errors="replace").decode()

    def read(self, lines: Iterable[bytes], path: Path) -> Iterator[tuple[int, bool, bytes]]:
        """The row that each line is of, whether the row failed, and the line.

        Raises:
            InputError: A line is not one of this batch.
        """
        for index, line in enumerate(lines):
            try:
                item, has_failed = self._row_of(index, line)
            except (ValueError, TypeError, KeyError, AttributeError):
                raise InputError(
                    f"{path}:{index + 1} is not a line of this run: add overwrite=True (and leave "
                    "out resume=True) to start over"
                ) from None
            if item >= self._num_rows:
                raise InputError(
                    f"{path} has a line of row {item + 1:,}, but there are {self._num_rows:,} "
                    "rows: resume with the limit= that the run began with, or without one"
                )
            yield item, has_failed, line

    def _row_of(self, index: int, line: bytes) -> tuple[int, bool]:
        if self._is_ordered and not line.startswith(_ERROR_START):
            return index, False
        fields = json.loads(line)
        if not self._is_ordered:
            return int(fields["item"]), "error" in fields
        error = fields["error"]  # or a workflow's own result that looks like one
        return index, error.keys() == _ERROR_FIELDS and error["item"] == index


def to_json(value: Any, name: str) -> str:
    """A workflow's result as one line of JSON.

    Raises:
        InputError: It has no JSON form.
    """
    try:
        text = json.dumps(to_jsonable_python(value), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (PydanticSerializationError, ValueError, TypeError) as error:
        kind = f"a value of type {type(value).__name__}"
        if isinstance(value, Ref):
            kind = "a call that it did not await (write `return await ...`),"
        raise InputError(
            f"{name} returned {kind} that cannot be written as JSON ({error}): return "
            "JSON values, dataclasses or pydantic models"
        ) from error
    return text
