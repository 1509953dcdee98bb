"""Parts of replies: what is known can be read, and nothing else."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import pytest
from pydantic import BaseModel, Field

from helium_agents.errors import InvalidReply
from helium_agents.graph.reply_part import part_of


class Verdict(enum.Enum):
    PASS = "pass"
    FAIL = "fail"


class Model(BaseModel):
    verdict: Verdict
    reason: str
    score: int = 3


@dataclass(frozen=True)
class Data:
    verdict: Verdict
    reason: str


class Typed(TypedDict):
    verdict: Verdict
    reason: str


class Renamed(BaseModel):
    verdict: Literal["pass"] = Field(alias="v")


@pytest.mark.parametrize("asked", [Model, Data])
def test_what_is_known_can_be_read_and_nothing_else(asked: Any) -> None:
    found = part_of(asked, '{"verdict": "fail"}')
    assert isinstance(found, asked)
    assert found.verdict is Verdict.FAIL
    with pytest.raises(AttributeError):
        _ = found.reason


def test_defaults_are_not_known() -> None:
    with pytest.raises(AttributeError):
        _ = part_of(Model, '{"verdict": "fail"}').score


def test_of_dicts_keys_are_missing() -> None:
    assert part_of(Typed, '{"verdict": "fail"}') == {"verdict": Verdict.FAIL}
    assert part_of({"type": "object"}, '{"verdict": "fail"}') == {"verdict": "fail"}


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (Model, '{"verdict": "other"}'),
        (Model, '"fail"'),
        (Renamed, '{"v": "pass"}'),
        (list[int], '{"a": 1}'),
    ],
)
def test_what_does_not_fit_is_no_part(asked: Any, text: str) -> None:
    with pytest.raises(InvalidReply):
        part_of(asked, text)
