"""What became of a call: its value, or what it raised, as an object of its own for each who asks.

Many may wait for one answer. Were they all given the same exception object, each would see the
traceback, the notes and the `__context__` that the others add to it.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

E = TypeVar("E", bound=BaseException)


@dataclass(slots=True)
class Value:
    """A call returned."""

    value: Any

    def get(self) -> Any:
        """The value."""
        return self.value


class Failure:
    """A call raised; the traceback is that of the first raise.

    Args:
        error: What was raised. A copy is kept: whoever caught it may add to it.
        handled: What the one who ran the call was handling meanwhile. Python makes that the context
            of whatever is raised, but it is no business of others who wait for the call.
    """

    __slots__ = ("_error", "_traceback")

    def __init__(self, error: BaseException, handled: BaseException | None = None) -> None:
        self._error = copy_error(error)
        self._traceback = error.__traceback__
        if handled is not None and self._error is not error and error.__context__ is handled:
            self._error.__context__ = None

    def get(self) -> NoReturn:
        """Raise a copy of what was raised."""
        raise self.error

    @property
    def error(self) -> BaseException:
        """A copy of what was raised, with its traceback."""
        return copy_error(self._error).with_traceback(self._traceback)


Outcome = Value | Failure


def copy_error(error: E) -> E:
    """Another exception of the same class, arguments, attributes, notes, cause and context.

    No code of the class runs where that can be avoided. An exception that cannot be copied (it
    holds state in slots or in C, and `copy.copy` does not give back its arguments) is returned
    itself, and then shared.
    """
    try:
        twin = _twin(error)
    except Exception:
        return error
    if len(twin.args) != len(error.args) or any(
        ours is not theirs for ours, theirs in zip(twin.args, error.args, strict=True)
    ):
        return error
    attributes = vars(error)
    vars(twin).update(attributes)
    if "__notes__" in attributes:
        twin.__notes__ = list(attributes["__notes__"])
    twin.__cause__, twin.__context__ = error.__cause__, error.__context__
    twin.__suppress_context__ = error.__suppress_context__
    return twin


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement


def _twin(error: E) -> E:
    cls = type(error)
    base = next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)
    has_slots = any(vars(each).get("__slots__") for each in cls.__mro__[: cls.__mro__.index(base)])
    if has_slots:
        raise TypeError("slots are not copied")
    if base.__basicsize__ == BaseException.__basicsize__:
        with suppress(TypeError):  # of a class that was not made by a class statement all the same
            bare: E = base.__new__(cls, *error.args)
            return bare  # its state is its arguments and attributes
    twin = copy.copy(error)
    if type(twin) is not cls or twin is error:
        raise TypeError("it copies itself as something else")
    if not error.args:
        twin.args = ()  # pydantic's are made from arguments that they do not keep
    if isinstance(error, AttributeError | NameError):  # which forget these when they are copied
        for name in ("name", "obj"):
            if hasattr(error, name):
                setattr(twin, name, getattr(error, name))
    return twin
