"""Why a run failed, in a few lines: what was raised, by which row, and where in the user's code."""

from __future__ import annotations

import linecache
import os
import traceback

from helium_agents.batch.rows import Rows, shorten
from helium_agents.batch.workflow import Workflow
from helium_agents.cli.loading import OURS, relative
from helium_agents.errors import (
    EngineDied,
    HeliumError,
    ItemError,
    TransientEngineError,
    in_words,
)
from helium_agents.runtime.map import ENDS_THE_RUN

_MAY_PASS = (TransientEngineError, EngineDied, TimeoutError, ConnectionError)


def may_pass(error: BaseException) -> bool:
    """Whether the same run may go well the next time, though nothing was corrected."""
    return isinstance(_first(_cause(error)), _MAY_PASS)


def explain_failure(error: BaseException, workflow: Workflow, rows: Rows | None = None) -> str:
    """What a person needs to know of an error that ended a run.

    Args:
        error: What was raised.
        workflow: Whose file is the user's code.
        rows: Where the row of an `ItemError` is from.
    """
    place_of_row = ""
    if isinstance(error, ItemError) and rows is not None:
        place_of_row = f"in {rows.place(error.index)}: {shorten(repr(error.row), 200)}"
    error = _cause(error)
    message = _describe(error)
    if isinstance(error, ENDS_THE_RUN):  # nobody's row is at fault
        return message
    first = _first(error)
    if first is not error:
        message += f"; the first: {_describe(first)}"
    place = user_place(first, workflow) or user_place(error, workflow)
    notes = getattr(error, "__notes__", ())
    details = [place_of_row, *notes, f"at {place}" if place else ""]
    return "\n  ".join([message, *filter(None, details)])


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


def _cause(error: BaseException) -> BaseException:
    """The error itself, or what the row raised whose error it is."""
    return (isinstance(error, ItemError) and error.__cause__) or error


def _first(error: BaseException) -> BaseException:
    """The error itself, or the first of a task group's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _is_users(filename: str, workflow: Workflow) -> bool:
    if filename.startswith("<"):  # made by exec, as the methods of dataclasses are
        return False
    path = os.path.realpath(filename)
    is_below = path.startswith(str(workflow.root) + os.sep)
    is_others = "site-packages" in path or path.startswith(OURS)
    return path == str(workflow.file) or (is_below and not is_others)
