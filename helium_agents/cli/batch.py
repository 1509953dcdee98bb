"""A batch: a workflow over rows, its results written as lines of an output.

This is `helium run` without the command line: it knows sessions and files, and nothing of
terminals, exit codes or how engines are chosen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any, Literal

from pydantic_core import PydanticSerializationError, to_jsonable_python

from helium_agents.cli.loading import Workflow
from helium_agents.cli.output import Output
from helium_agents.cli.rows import Rows
from helium_agents.errors import InputError, ItemError, message_of
from helium_agents.graph.ref import Ref
from helium_agents.runtime.session import Session

OnError = Literal["raise", "collect"]

_ERROR_START = b'{"error": {"type": '
_ERROR_FIELDS = {"type", "message", "item"}


class Batch:
    """One run of a workflow over a file of rows.

    Args:
        workflow: What to run.
        rows: What to run it on.
        output: Where the results go, open.
        on_error: "raise" the first failure; or "collect": write failures as lines too.
        is_ordered: Write in the order of the rows; otherwise as they finish, with the row's index.

    Attributes:
        num_failed: How many rows failed, an earlier part of the run included.
        num_answered: How many rows have been answered and written since.
        done: Indices of the rows that an earlier part of the run has answered.
        first_failure: The error of the first row that failed since.
    """

    def __init__(
        self,
        workflow: Workflow,
        rows: Rows,
        output: Output,
        *,
        on_error: OnError = "raise",
        is_ordered: bool = True,
    ) -> None:
        self.workflow = workflow
        self.rows = rows
        self.output = output
        self.num_failed = 0
        self.num_answered = 0
        self.done: range | set[int] = range(0)
        self.first_failure: ItemError | None = None
        self._in_part: range | set[int] = self.done
        self._kept: Iterator[tuple[int, bytes]] = iter(())
        self._next_kept: tuple[int, bytes] | None = None
        self.on_error: OnError = on_error
        self._is_ordered = is_ordered

    def keep_finished(self, *, retries: bool) -> None:
        """Go on from the finished output: its lines are taken over in their places.

        Args:
            retries: Leave out the rows that failed, to compute them again.

        Raises:
            InputError: A line is not one of this batch.
        """
        done = set(self._in_part)
        for item, has_failed, _ in self._finished_lines():
            self._check_is_asked_for(item, self.output.path)
            if not (has_failed and retries):
                self.num_failed += has_failed
                done.add(item)
        self.done = done
        self._kept = ((item, line) for item, _, line in self._finished_lines() if item in done)
        self._next_kept = next(self._kept, None)

    def take_up(self) -> None:
        """Go on after the rows whose lines are in the open output.

        Raises:
            InputError: A line is not one of this batch.
        """
        done: set[int] = set()
        for index, line in enumerate(self.output.read_lines()):
            item, has_failed = self._read(index, line)
            self._check_is_asked_for(item, self.output.part)
            self.num_failed += has_failed
            if not self._is_ordered:
                done.add(item)
        self.done = self._in_part = range(self.output.num_lines) if self._is_ordered else done

    async def run(self, session: Session) -> None:
        """Run it in a session that is not open yet, so that all lines are in the part file.

        What stops the run is raised; the lines so far are in the part file.

        Raises:
            ItemError: A row failed, and failures are not collected.
        """
        is_open = (index for index in count() if index not in self.done)
        self._write_kept(next(is_open) if self._is_ordered else math.inf)
        async with session:
            results = session.map(
                self._answer(),
                self.rows,
                ordered=self._is_ordered,
                on_error="collect",  # for the failed row's index
                done=self.done,
            )
            async with aclosing(results), aclosing(results.indexed()) as indexed:
                async for index, value in indexed:
                    self._write_kept(index)
                    if isinstance(value, ItemError) and self.on_error == "raise":
                        raise value
                    self.output.write(self._line(index, value))
        self._write_kept(math.inf)

    def _answer(self) -> Callable[[Any], Awaitable[str]]:
        """The workflow, its result as JSON text; having none is a failure of the row."""
        fn, name = self.workflow.fn, self.workflow.name

        async def answer(row: Any) -> str:
            return to_json(await fn(row), name)

        answer.__name__ = name  # by which the session tells what it waits for
        return answer

    def _finished_lines(self) -> Iterator[tuple[int, bool, bytes]]:
        """Row, whether it failed, and line: those of the finished output that are not in `part`."""
        for index, line in enumerate(self.output.finished_lines()):
            item, has_failed = self._read(index, line)
            if item not in self._in_part:
                yield item, has_failed, line

    def _check_is_asked_for(self, item: int, path: Path) -> None:
        if item >= len(self.rows):
            raise InputError(
                f"{path} has a line of row {item + 1:,}, but there are {len(self.rows):,} rows: "
                "resume with the --limit that the run began with, or without one"
            )

    def _write_kept(self, before: float) -> None:
        """Take over finished lines, up to that of row `before`."""
        while self._next_kept is not None and self._next_kept[0] < before:
            self.output.write(self._next_kept[1].decode().removesuffix("\n"))
            self._next_kept = next(self._kept, None)

    def _read(self, index: int, line: bytes) -> tuple[int, bool]:
        """The row that a line is of, and whether the row failed."""
        if self._is_ordered and not line.startswith(_ERROR_START):
            return index, False
        try:
            fields = json.loads(line)
            if not self._is_ordered:
                return int(fields["item"]), "error" in fields
            error = fields["error"]  # or a workflow's own result that looks like one
            return index, error.keys() == _ERROR_FIELDS and error["item"] == index
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(
                f"{self.output.part}:{index + 1} is not a line of this run: add --overwrite (and "
                "leave out --resume) to start over"
            ) from None

    def _line(self, index: int, value: str | ItemError) -> str:
        if isinstance(value, ItemError):
            self.num_failed += 1
            self.first_failure = self.first_failure or value
            cause = value.__cause__
            assert cause is not None
            error = {"type": type(cause).__name__, "message": message_of(cause), "item": index}
            fields = {"error": error} if self._is_ordered else {"item": index, "error": error}
            # a lone surrogate in a message must not fail the run: escape what is not ASCII then
            text = json.dumps(fields, ensure_ascii=False)
            return text if _is_unicode(text) else json.dumps(fields)
        self.num_answered += 1
        return value if self._is_ordered else f'{{"item": {index}, "value": {value}}}'


def to_json(value: Any, name: str) -> str:
    """A workflow's result as one line of JSON.

    Args:
        value: JSON values, dataclasses, pydantic models, enums, dates, and containers of them.
        name: The workflow, for the message.

    Raises:
        InputError: The value has no JSON form.
    """
    try:
        text = json.dumps(to_jsonable_python(value), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (PydanticSerializationError, ValueError, TypeError) as error:
        raise InputError(
            f"{name} returned {_kind(value)} that cannot be written as JSON ({error}): return "
            "JSON values, dataclasses or pydantic models"
        ) from error
    return text


def _kind(value: Any) -> str:
    if isinstance(value, Ref):
        return "a call that it did not await (write `return await ...`),"
    return f"a value of type {type(value).__name__}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
