"""What is kept on a class or function is kept on it alone, lives as long, and counts nowhere."""

from __future__ import annotations

import functools
import gc
import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import Enum
from types import FunctionType

import pytest
from pydantic import BaseModel

from helium_agents.keys.kept import KEPT, kept_on
from helium_agents.keys.versions.version import Version, version_of


def function() -> int:
    return 1


@dataclass
class Base:
    x: int


class Child(Base):
    pass


class Colour(Enum):
    RED = 1


class Model(BaseModel):
    x: int


@pytest.mark.parametrize("definition", [function, Base, Child, Colour, Model])
def test_each_has_what_is_kept_on_it(definition: type | FunctionType) -> None:
    kept = kept_on(definition)
    kept["found"] = definition
    assert kept_on(definition) is kept
    assert version_of(definition) is version_of(definition)


def test_none_is_taken_for_another() -> None:
    @functools.wraps(function)
    def wrapper() -> int:
        return 2

    kept_on(function)["of"] = kept_on(Base)["of"] = "another"
    again = dataclass(slots=True)(Base)  # another class with all attributes of this one
    for definition in (functools.wraps(function)(wrapper), Child, again):
        assert kept_on(definition) is not kept_on(function)
        assert "of" not in kept_on(definition)


def test_what_takes_no_attributes_keeps_nothing() -> None:
    kept_on(date)["found"] = 1
    assert kept_on(date) == {}


def test_it_is_no_part_of_a_version() -> None:
    for definition in (function, Base, Colour, Model):
        before = Version(definition).digest()
        kept_on(definition)["more"] = object()
        assert Version(definition).digest() == before


def test_another_process_is_sent_none_of_it() -> None:
    kept_on(function)["lock"] = function
    assert pickle.loads(pickle.dumps(vars(function)[KEPT])) == {}


def test_versions_live_as_long_as_what_they_are_of() -> None:
    alive: weakref.WeakSet[Callable[[], object]] = weakref.WeakSet()

    def define(number: int) -> None:
        def local() -> object:
            return number, local  # its version leads back to it

        @dataclass
        class Local:
            x: int = number

        for each in (local, Local):
            alive.add(each)
            assert version_of(each).digest() == version_of(each).digest()

    for number in range(3):
        define(number)
    gc.collect()
    assert not alive
