"""Errors: they survive a copy and a pickle, and say what they can of what they are about."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from helium_agents import errors
from helium_agents.errors import EncodingError, EngineDied, HeliumError, ItemError, shown

MADE: dict[str, HeliumError] = {
    "EncodingError": EncodingError("cannot", "row.items[3]"),
    "EngineDied": EngineDied("gone", was_killed=True),
    "ItemError": ItemError(3, {"a": 1}, KeyError("b")),
    **{
        name: kind("said")
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, HeliumError) and kind not in (EncodingError, EngineDied, ItemError)
    },
}
COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(
        lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("copied", COPIES)
def test_every_error_survives_a_copy(name: str, copied: Callable[[Any], Any]) -> None:
    error = MADE[name]
    error.add_note("a note")
    other = copied(error)
    assert type(other) is type(error) and other is not error
    assert str(other) == str(error) and other.args == error.args
    assert repr(vars(other)) == repr(vars(error)) and "a note" in str(vars(other))


@pytest.mark.parametrize("copied", COPIES)
def test_the_error_of_an_item_keeps_its_cause(copied: Callable[[Any], Any]) -> None:
    other = copied(ItemError(3, {"a": 1}, KeyError("b")))
    assert (other.index, other.row, str(other)) == (3, {"a": 1}, "item 3 failed: KeyError: 'b'")
    assert type(other.__cause__) is KeyError and other.__cause__.args == ("b",)


def test_the_error_of_an_item_whose_cause_has_no_text() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert str(ItemError(3, None, Mute())) == "item 3 failed: Mute: <no text, str() raises>"
    assert str(ItemError(3, None, ValueError())) == "item 3 failed: ValueError"


def test_a_value_is_shown_whatever_its_repr_does() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    assert shown(Mute()) == "<a Mute whose repr raised RuntimeError>"
    assert shown(list(range(99)), 10) == "[0, 1, ..."
