"""Why a run failed, in a few lines: what was raised, by which row, and where in the user's code."""

from __future__ import annotations

import linecache
import os
import traceback

from helium_agents.cli.loading import OURS, Workflow
from helium_agents.errors import HeliumError
from helium_agents.runtime.map import ENDS_THE_RUN


def explain_failure(error: BaseException, workflow: Workflow) -> str:
    """What a person needs to know of an error that ended a run.

    Args:
        error: What was raised.
        workflow: Whose file is the user's code.
    """
    message = _describe(error)
    if isinstance(error, ENDS_THE_RUN):  # nobody's row is at fault
        return message
    first = _first(error)
    if first is not error:
        message += f"; the first: {_describe(first)}"
    place = user_place(first, workflow) or user_place(error, workflow)
    return "\n".join([message, *_notes(error), *([f"  at {place}"] if place else [])])


def user_place(error: BaseException, workflow: Workflow) -> str | None:
    """The innermost line of the user's code that the error went through, or `None`."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_users(frame.filename, workflow):
            source = linecache.getline(frame.filename, frame.lineno or 0).strip()
            shown = f", in {frame.name}" + (f": {source}" if source else "")
            return f"{_relative(frame.filename)}:{frame.lineno}{shown}"
    return None


def _describe(error: BaseException) -> str:
    if isinstance(error, HeliumError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _first(error: BaseException) -> BaseException:
    """The error itself, or the first of a task group's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _notes(error: BaseException) -> list[str]:
    return [f"  {note}" for note in getattr(error, "__notes__", ())]


def _is_users(filename: str, workflow: Workflow) -> bool:
    path = os.path.realpath(filename)
    if path == str(workflow.file):
        return True
    is_below = path.startswith(str(workflow.root) + os.sep)
    return is_below and "site-packages" not in path and not path.startswith(OURS)


def _relative(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
