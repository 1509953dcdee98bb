"""Finds the workflow that `FILE:WORKFLOW` names.

The file is imported under the name that the user's own program would import it by, because that
name is part of the identity of its operators: a file of a package by its dotted name, any other by
its stem, each with the folder on `sys.path` that makes it so.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from helium_agents.batch.workflow import Workflow, is_workflow
from helium_agents.errors import InputError

OURS = str(Path(__file__).resolve().parents[1]) + os.sep
"""Where this package is: code below it is not the user's."""


def load_workflow(target: str) -> Workflow:
    """Import the workflow that `FILE:WORKFLOW` names.

    Raises:
        InputError: There is no such file or workflow, the file cannot be imported, or the workflow
            is no async function of one row.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise InputError(
            f"{target!r} names no workflow: write FILE:WORKFLOW, as in flow.py:answer, where "
            "answer is an async function in flow.py"
        )
    module = _import(Path(place))
    if hasattr(module, name):
        return Workflow.of(getattr(module, name), name)
    names = [
        name
        for name, value in vars(module).items()
        if is_workflow(value) and value.__module__ == module.__name__ and name[0] != "_"
    ]
    others = f"; it defines {', '.join(names) or 'no @operator'}"
    raise InputError(f"{place} has no workflow {name!r}{_did_you_mean(name, names) or others}")


def relative(path: str | Path) -> str:
    """A path as a person would write it here."""
    found = os.path.relpath(path)
    return str(path) if found.startswith(os.pardir) else found


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        similar = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise InputError(f"there is no file {path}{_did_you_mean(str(path), similar)}")
    path = path.resolve()
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if path.stem == "__init__" and len(parts) > 1:
        parts.pop()
    if "." in path.stem:
        raise InputError(f"{path.name} cannot be imported by that name: rename it without the dot")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        module = importlib.import_module(".".join(parts))
    except (Exception, SystemExit) as error:
        raise InputError(_explain_import(error, relative(path))) from error
    found = getattr(module, "__file__", None)
    if found is None or not os.path.samefile(found, path):
        raise InputError(
            f"{path.name} has the name of another module ({found or module.__name__}): rename it"
        )
    return module


def _explain_import(error: BaseException, shown: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"{shown} imports {error.name!r}, which is not installed in this Python "
            f"({sys.executable}): install it there, or use the helium of the right environment"
        )
    if isinstance(error, SystemExit):
        return (
            f"{shown} ends the program while it is imported: put what runs it under a guard, "
            'if __name__ == "__main__":'
        )
    if isinstance(error, SyntaxError):
        place = relative(error.filename) if error.filename else shown
        return f"{place}:{error.lineno} is not valid Python: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((f for f in reversed(frames) if not f.filename.startswith(OURS)), frames[-1])
    return (
        f"{shown} cannot be imported: {type(error).__name__}: {error} "
        f"(at {relative(frame.filename)}:{frame.lineno})"
    )


def _did_you_mean(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f": did you mean {close[0]}?" if close else ""
