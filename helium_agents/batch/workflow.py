"""A workflow: an async function of one row, and what its parameter takes."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from helium_agents.authoring.operator import Operator
from helium_agents.errors import InputError, VersionError
from helium_agents.keys.versions.version import code_version


def is_workflow(value: Any) -> bool:
    """Whether a value is an operator or an async function."""
    return isinstance(value, Operator) or inspect.iscoroutinefunction(value)


@dataclass(frozen=True, slots=True)
class Workflow:
    """An async function of one row; see `of`.

    Args:
        fn: The operator or async function.
        name: What a person calls it.
        parameter: The first parameter as it is written, e.g. ``document: Document``.
        row_type: Makes rows from JSON; `None` where the parameter does not say what it takes.
    """

    fn: Callable[[Any], Awaitable[Any]]
    name: str
    parameter: str
    row_type: TypeAdapter[Any] | None

    @classmethod
    def of(cls, fn: Any, name: str = "") -> Workflow:
        """What is known of a function.

        Args:
            fn: An operator or async function; its parameters after the first need defaults.
            name: What a person calls it; its own name by default.

        Raises:
            InputError: It is no async function of one row, or its annotation makes no rows.
        """
        name = name or getattr(fn, "__name__", repr(fn))
        if not is_workflow(fn):
            if inspect.isfunction(fn):
                raise InputError(f"{name} is not async: make it `async def {name}(row)`")
            raise InputError(
                f"{name} is a value of type {type(fn).__name__}, not a workflow: give an "
                "@operator or an async function"
            )
        signature = inspect.signature(fn)
        try:
            signature.bind("row")
        except TypeError as error:
            raise InputError(
                f"{name}{signature} cannot be called with one row ({error}): a workflow takes the "
                "row as its first parameter, and any others need defaults"
            ) from error
        parameter = next(iter(signature.parameters.values()))
        written = _written(parameter, fn)
        if parameter.annotation is parameter.empty:
            return cls(fn, name, written, None)
        try:
            hints = typing.get_type_hints(inspect.unwrap(fn), include_extras=True)
            return cls(fn, name, written, TypeAdapter(hints[parameter.name]))
        except NameError as error:
            raise InputError(
                f"the annotation in {name}({written}) cannot be read: {error}. Import it at the "
                "top of the file, not under TYPE_CHECKING"
            ) from error
        except (PydanticUserError, TypeError) as error:
            raise InputError(
                f"no row can be made for {name}({written}): annotate the parameter with a "
                "pydantic model, a dataclass, a TypedDict or JSON types, or not at all"
            ) from error

    @property
    def file(self) -> Path:
        """The file of the module that defines it."""
        return Path(sys.modules[self.fn.__module__].__file__ or "").resolve()

    @property
    def root(self) -> Path:
        """The folder that its module's name starts from; code below it is the user's."""
        depth = self.fn.__module__.count(".") + (self.file.stem == "__init__")
        return self.file.parents[depth]

    @property
    def source_version(self) -> str:
        """The version of its source; empty where it has none."""
        fn: Any = self.fn
        try:
            return code_version(getattr(fn, "__wrapped__", fn)).hex()
        except VersionError:
            return ""


def _written(parameter: inspect.Parameter, fn: Any) -> str:
    """A parameter as it stands in the source."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return parameter.name
    if not isinstance(annotation, str):
        annotation = inspect.formatannotation(annotation, fn.__module__)
    return f"{parameter.name}: {annotation}"
