"""Why a run failed, in a few lines: what was raised, by which row, and where in the user's code."""

from __future__ import annotations

import linecache
import os
import traceback

from helium_agents.batch.rows import Rows, place_of_row
from helium_agents.batch.workflow import Workflow
from helium_agents.cli.loading import OURS, relative
from helium_agents.errors import HeliumError, ItemError, in_words, shown
from helium_agents.runtime.map.map import ENDS_THE_RUN


def explain_failure(error: BaseException, workflow: Workflow, rows: Rows | None = None) -> str:
    """What a person needs to know of an error that ended a run.

    Args:
        error: What was raised.
        workflow: Whose file is the user's code.
        rows: Where the row of an `ItemError` is from.
    """
    details: list[str] = []
    if isinstance(error, ItemError) and rows is not None:
        row = place_of_row(rows.path, error.index)
        details.append(f"in {row}: {shown(error.row, 200)}")
    error = cause_of(error)
    message = _describe(error)
    if isinstance(error, ENDS_THE_RUN):  # nobody's row is at fault
        return message
    first = error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if first is not error:
        message += f"; the first: {_describe(first)}"
    place = user_place(first, workflow) or user_place(error, workflow)
    details += getattr(error, "__notes__", ())
    if place:
        details.append(f"at {place}")
    return "\n  ".join([message, *details])


def cause_of(error: BaseException) -> BaseException:
    """The error itself, or what the row raised whose error it is."""
    return (isinstance(error, ItemError) and error.__cause__) or error


def user_place(error: BaseException, workflow: Workflow) -> str | None:
    """The innermost line of the user's code that the error went through, or `None`."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_users(frame.filename, workflow):
            source = linecache.getline(frame.filename, frame.lineno or 0).strip()
            shown = f", in {frame.name}" + (f": {source}" if source else "")
            return f"{relative(frame.filename)}:{frame.lineno}{shown}"
    return None


def _describe(error: BaseException) -> str:
    if isinstance(error, HeliumError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"the workflow ended the program (sys.exit({error.code!r}))"
    return in_words(error)


def _is_users(filename: str, workflow: Workflow) -> bool:
    if filename.startswith("<"):  # made by exec, as the methods of dataclasses are
        return False
    path = os.path.realpath(filename)
    is_below = path.startswith(str(workflow.root) + os.sep)
    is_others = "site-packages" in path or path.startswith(OURS)
    return path == str(workflow.file) or (is_below and not is_others)
