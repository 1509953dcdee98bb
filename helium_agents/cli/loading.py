"""Finds the workflow that `FILE:WORKFLOW` names, and what its parameter takes.

The file is imported under the name that the user's own program would import it by, because that
name is part of the identity of its operators: a file of a package by its dotted name, any other by
its stem, each with the folder on `sys.path` that makes it so.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from helium_agents.authoring.operator import Operator
from helium_agents.errors import InputError

OURS = str(Path(__file__).resolve().parents[1]) + os.sep
"""Where this package is: code below it is not the user's."""


@dataclass(frozen=True, slots=True)
class Workflow:
    """An async function of one row, found by its name on the command line.

    Args:
        target: What the user typed, `FILE:WORKFLOW`.
        fn: The operator or async function.
        file: Where it is defined.
        root: The folder that its module's name starts from; code below it is the user's.
        parameter: The first parameter as it is written, e.g. ``document: Document``.
        is_annotated: Whether the parameter says what it takes.
        row_type: Makes rows from JSON.
    """

    target: str
    fn: Callable[[Any], Awaitable[Any]]
    file: Path
    root: Path
    parameter: str
    is_annotated: bool
    row_type: TypeAdapter[Any]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.target.rpartition(":")[2]


def load_workflow(target: str) -> Workflow:
    """Import the workflow that `FILE:WORKFLOW`, or `package.module:WORKFLOW`, names.

    Raises:
        InputError: There is no such file or workflow, the file cannot be imported, or the workflow
            is no async function of one row.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise InputError(
            f"{target!r} names no workflow: write FILE:WORKFLOW, as in flow.py:answer, where "
            "answer is an async function in flow.py"
        )
    is_file = place.endswith(".py") or os.sep in place
    module, root = _import_file(Path(place)) if is_file else _import_module(place)
    fn = _find(module, name, place)
    _check_takes_a_row(fn, name)
    parameter = next(iter(inspect.signature(fn).parameters.values()))
    is_annotated = parameter.annotation is not inspect.Parameter.empty
    return Workflow(
        target=target,
        fn=fn,
        file=Path(module.__file__ or place).resolve(),
        root=root,
        parameter=_written(parameter, fn),
        is_annotated=is_annotated,
        row_type=_row_type(fn, parameter, name) if is_annotated else TypeAdapter(Any),
    )


# --- importing ---------------------------------------------------------------------------------


def _import_file(path: Path) -> tuple[ModuleType, Path]:
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
    module = _import(".".join(parts), root, str(path))
    found = getattr(module, "__file__", None)
    if found is None or not os.path.samefile(found, path):
        raise InputError(
            f"{path.name} has the name of another module ({found or module.__name__}): rename it"
        )
    return module, root


def _import_module(name: str) -> tuple[ModuleType, Path]:
    module = _import(name, Path.cwd(), name)
    if module.__file__ is None:
        raise InputError(f"{name} is a folder without __init__.py: name a module inside it")
    depth = name.count(".") + hasattr(module, "__path__")
    return module, Path(module.__file__).resolve().parents[depth]


def _import(name: str, root: Path, shown: str) -> ModuleType:
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise InputError(_explain_import(error, name, shown)) from error


def _explain_import(error: BaseException, name: str, shown: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if name == error.name or name.startswith(f"{error.name}."):
            return (
                f"there is no module {error.name!r} here or in this Python ({sys.executable}): "
                "check the name, or give the path of the file, as in flow.py:answer"
            )
        return (
            f"{_shown_path(shown)} imports {error.name!r}, which is not installed in this Python "
            f"({sys.executable}): install it there, or use the helium of the right environment"
        )
    if isinstance(error, SystemExit):
        return (
            f"{_shown_path(shown)} ends the program while it is imported: put what runs it under "
            'a guard, if __name__ == "__main__":'
        )
    if isinstance(error, SyntaxError):
        place = f"{_shown_path(error.filename or shown)}:{error.lineno}"
        return f"{place} is not valid Python: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((f for f in reversed(frames) if not f.filename.startswith(OURS)), frames[-1])
    return (
        f"{_shown_path(shown)} cannot be imported: {type(error).__name__}: {error} "
        f"(at {_shown_path(frame.filename)}:{frame.lineno})"
    )


def _shown_path(path: str) -> str:
    relative = os.path.relpath(path) if os.path.isabs(path) else path
    return path if relative.startswith(os.pardir) else relative


# --- the workflow ------------------------------------------------------------------------------


def _find(module: ModuleType, name: str, place: str) -> Any:
    try:
        found = getattr(module, name)
    except AttributeError:
        names = _workflow_names(module)
        others = f"; it defines {', '.join(names)}" if names else "; it defines no @operator"
        raise InputError(
            f"{place} has no workflow {name!r}{_did_you_mean(name, names) or others}"
        ) from None
    if isinstance(found, Operator) or inspect.iscoroutinefunction(found):
        return found
    if inspect.isfunction(found):
        raise InputError(f"{name} in {place} is not async: make it `async def {name}(row)`")
    raise InputError(
        f"{name} in {place} is {_article(type(found).__name__)}, not a workflow: name an @operator "
        f"or an async function{_did_you_mean(name, _workflow_names(module))}"
    )


def _workflow_names(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if (isinstance(value, Operator) or inspect.iscoroutinefunction(value))
        and getattr(value, "__module__", None) == module.__name__
        and not name.startswith("_")
    ]


def _check_takes_a_row(fn: Any, name: str) -> None:
    signature = inspect.signature(fn)
    try:
        signature.bind("row")
    except TypeError as error:
        raise InputError(
            f"{name}{signature} cannot be called with one row ({error}): a workflow takes the row "
            "as its first parameter, and any others need defaults"
        ) from error


def _row_type(fn: Any, parameter: inspect.Parameter, name: str) -> TypeAdapter[Any]:
    function = inspect.unwrap(fn)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        return TypeAdapter(hints[parameter.name])
    except NameError as error:
        raise InputError(
            f"the annotation in {name}({_written(parameter, fn)}) cannot be read: {error}. Import "
            "it at the top of the file, not under TYPE_CHECKING"
        ) from error
    except (PydanticUserError, TypeError) as error:
        raise InputError(
            f"no row can be made for {name}({_written(parameter, fn)}): annotate the parameter "
            "with a pydantic model, a dataclass, a TypedDict or JSON types, or not at all"
        ) from error


def _written(parameter: inspect.Parameter, fn: Any) -> str:
    """A parameter as it stands in the source."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return parameter.name
    if not isinstance(annotation, str):
        annotation = inspect.formatannotation(annotation, fn.__module__)
    return f"{parameter.name}: {annotation}"


def _did_you_mean(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    others = [other for other in names if other not in close]
    if not close:
        return ""
    listed = f" (also there: {', '.join(others)})" if others and len(others) <= 8 else ""
    return f": did you mean {close[0]}?{listed}"


def _article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
