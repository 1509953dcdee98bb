"""What a session can be told: one list, with defaults, for every place that takes options."""

from __future__ import annotations

from typing import Any

import pytest

from helium_agents import Session, SessionOptions, run
from helium_agents.batch import Batch
from helium_agents.errors import SessionError
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.schedule import EverythingOpen, FewOpen
from helium_agents.runtime.options import all_options, schedule_of


def test_every_option_has_a_default() -> None:
    assert all_options({}).keys() == SessionOptions.__annotations__.keys()


def test_what_is_given_replaces_the_default() -> None:
    assert all_options({"token_budget": 7}) == {**all_options({}), "token_budget": 7}


@pytest.mark.parametrize("make", [Session, lambda **given: Batch(print, "in", "out", **given)])
def test_an_option_that_does_not_exist_is_refused_by_name(make: Any) -> None:
    with pytest.raises(TypeError, match=r"no option memos=: the options are memo, memo_mode"):
        make(memos="here")


async def nothing() -> None:
    raise AssertionError


def test_a_synchronous_program_has_the_same_options() -> None:
    with pytest.raises(SessionError, match="token_budget=0"):
        run(nothing, token_budget=0)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, Adaptive),
        ({"max_open": 3}, FewOpen),
        ({"schedule": EverythingOpen()}, EverythingOpen),
    ],
)
def test_the_schedule_that_is_asked_for(given: SessionOptions, kind: type) -> None:
    assert type(schedule_of(all_options(given))) is kind


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_open": 0}, "max_open=0 must be"),
        ({"max_open": 2, "schedule": EverythingOpen()}, "not both"),
        ({"schedule": "fast"}, "is no schedule: it has no .*choose"),
    ],
)
def test_a_wrong_schedule_is_refused(given: Any, message: str) -> None:
    with pytest.raises(SessionError, match=message):
        all_options(given)
