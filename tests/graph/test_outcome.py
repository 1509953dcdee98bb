"""Copies of exceptions: the same in everything, and another object."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from helium_agents.graph.outcome import Failure, copy_error


class Odd(BaseException):
    pass


class KeywordOnly(ValueError):
    def __init__(self, *, code: int) -> None:
        super().__init__("kept", "otherwise")
        self.code = code


class Slotted(Exception):
    __slots__ = ("code",)


class NewOnly(Exception):
    def __new__(cls, code: int) -> NewOnly:
        made = super().__new__(cls, code, "more")
        made.code = code  # type: ignore[attr-defined]
        return made


def raised(error: BaseException) -> Any:
    try:
        raise error from LookupError("the cause")
    except BaseException as caught:
        caught.add_note("a note")
        return caught


def of_the_interpreter() -> list[BaseException]:
    found: list[BaseException] = []
    for source in ("1/0", "[][3]", "{}['k']", "None.x", "undefined", "open('/nowhere/at/all')",
                   "b'\\xff'.decode()", "import_this(", "int('x')", "exit(3)"):  # fmt: skip
        try:
            eval(source)
        except BaseException as error:
            found.append(error)
    try:
        TypeAdapter(int).validate_json("{")
    except ValidationError as error:
        found.append(error)
    return found


@pytest.mark.parametrize(
    "error",
    [
        *of_the_interpreter(),
        raised(Odd(1, [2])),
        raised(KeywordOnly(code=3)),
        raised(NewOnly(4)),
        raised(ExceptionGroup("several", [ValueError(1)])),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_is_the_same_but_another_object(error: BaseException) -> None:
    twin = copy_error(error)
    assert twin is not error and type(twin) is type(error)
    assert len(twin.args) == len(error.args)
    assert all(a is b for a, b in zip(twin.args, error.args, strict=True))
    assert str(twin) == str(error)
    mine, theirs = copy.copy(vars(twin)), copy.copy(vars(error))
    assert mine.pop("__notes__", []) == theirs.pop("__notes__", [])
    assert mine == theirs
    assert twin.__cause__ is error.__cause__
    assert twin.__suppress_context__ == error.__suppress_context__
    for name in ("name", "obj", "errno", "filename", "code", "lineno"):
        assert getattr(twin, name, None) == getattr(error, name, None)
    twin.add_note("another")
    assert "another" not in getattr(error, "__notes__", [])


def test_what_cannot_be_copied_is_shared() -> None:
    error = Slotted("a")
    error.code = 1
    assert copy_error(error) is error


def test_a_failure_keeps_what_it_was_when_it_was_raised() -> None:
    error = raised(ValueError("a"))
    failure = Failure(error)
    error.add_note("later")
    for _ in range(2):
        with pytest.raises(ValueError, match="a") as caught:
            failure.get()
        assert caught.value.__notes__ == ["a note"]
        caught.value.add_note("here")
