"""Closed values: what schemas leave open, and what an answer's beginning already says."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from helium_agents.optimizer.closed_values import (
    MOST_VALUES,
    closed_value,
    closed_values,
    forced_value,
)


class Verdict(Enum):
    PASS = "pass"
    REVISE = "revise"
    REVISIT = "revisit"


class Judged(BaseModel):
    verdict: Verdict
    is_final: bool


class Reviewed(BaseModel):
    verdict: Verdict
    reason: str


class Nested(BaseModel):
    judged: Judged
    level: Annotated[int, Field(ge=9, le=10)] = 9


class Node(BaseModel):
    below: Node | None


def schema_of(asked: Any) -> str:
    return json.dumps(TypeAdapter(asked).json_schema())


@pytest.mark.parametrize(
    ("asked", "values"),
    [
        (bool, ["false", "true"]),
        (Literal["a", "b"], ['"a"', '"b"']),
        (Verdict, ['"pass"', '"revise"', '"revisit"']),
        (bool | None, ["false", "true", "null"]),
        (Annotated[int, Field(ge=1, le=3)], ["1", "2", "3"]),
        (Literal["x"], ['"x"']),
    ],
)
def test_small_types_are_closed(asked: Any, values: list[str]) -> None:
    found = closed_values(schema_of(asked))
    assert found is not None
    assert (list(found.values), found.is_whole) == (values, True)


def test_objects_of_closed_fields_are_closed() -> None:
    found = closed_values(schema_of(Nested))
    assert found is not None and found.is_whole
    assert len(found.values) == 3 * 2 * 2
    assert json.loads(found.values[0]) == {
        "judged": {"verdict": "pass", "is_final": False},
        "level": 9,
    }


def test_of_an_object_with_text_the_closed_fields_are_known() -> None:
    found = closed_values(schema_of(Reviewed))
    assert found is not None and not found.is_whole
    assert found.values[1] == '{"verdict": "revise"}'


@pytest.mark.parametrize(
    "schema",
    [
        schema_of(str),
        schema_of(int),
        schema_of(list[bool]),
        schema_of(Annotated[int, Field(ge=1, le=MOST_VALUES + 1)]),
        schema_of(Node),
        schema_of(bool | str),
        "true",
        '{"$ref": "#"}',
        '{"enum": []}',
        '{"type": "object", "properties": {"a": {"type": "boolean"}}}',
    ],
)
def test_others_are_not(schema: str) -> None:
    assert closed_values(schema) is None


def test_whole_answers_are_known_by_their_values() -> None:
    schema = schema_of(Nested)
    text = '{ "level":10,\n"judged": {"is_final":true, "verdict":"re\\u0076ise"}}'
    found = closed_value(schema, text)
    assert found is not None
    assert json.loads(found) == {"judged": {"verdict": "revise", "is_final": True}, "level": 10}
    assert closed_value(schema, '{"judged": {"is_final":true, "verdict":"pass"}}') == (
        '{"judged": {"verdict": "pass", "is_final": true}, "level": 9}'
    )
    assert closed_value(schema, '{"judged": 1}') is None
    assert closed_value(schema, '{"judg') is None
    assert closed_value(schema_of(Reviewed), '{"reason": "so", "verdict": "pass"}') == (
        '{"verdict": "pass"}'
    )


@pytest.mark.parametrize(
    ("asked", "text", "value"),
    [
        (Verdict, "", None),
        (Verdict, '"p', '"pass"'),
        (Verdict, '"revis', None),
        (Verdict, '"revise', '"revise"'),
        (Verdict, '"other', None),
        (bool, " t", "true"),
        (bool, "x", None),
        (Annotated[int, Field(ge=9, le=10)], "1", "10"),
        (Annotated[int, Field(ge=1, le=12)], "1", None),
        (Reviewed, "{", None),
        (Reviewed, '{"ver', None),
        (Reviewed, '{"verdict": "revis', None),
        (Reviewed, '{"verdict": "revise', '{"verdict": "revise"}'),
        (Reviewed, '{"verdict": "pass", "reason": "It is ri', '{"verdict": "pass"}'),
        (Judged, '{"verdict": "pass"', None),
        (Judged, '{"is_final": tru', None),
        (Literal["x"], "", '"x"'),
        (str, '"anything', None),
    ],
)
def test_a_beginning_forces_what_nothing_else_begins_with(
    asked: Any, text: str, value: str | None
) -> None:
    assert forced_value(schema_of(asked), text) == value


def test_a_number_at_the_end_may_go_on() -> None:
    class Scored(BaseModel):
        score: Literal[1, 10]
        is_good: bool

    schema = schema_of(Scored)
    assert forced_value(schema, '{"is_good": true, "score": 1') is None
    assert forced_value(schema, '{"is_good": true, "score": 1}') == '{"score": 1, "is_good": true}'
    assert forced_value(schema, '{"is_good": true, "score": 10') is None  # by what it is sure of


@given(st.sampled_from([Verdict, Judged, Nested, Reviewed]), st.data())
def test_what_is_forced_is_what_comes(asked: Any, data: st.DataObject) -> None:
    schema = schema_of(asked)
    closed = closed_values(schema)
    assert closed is not None
    answer = json.loads(data.draw(st.sampled_from(closed.values)))
    if not closed.is_whole:
        answer["reason"] = data.draw(st.text('ab{}"\\\n:é'))
    if isinstance(answer, dict):
        answer = dict(data.draw(st.permutations(list(answer.items()))))
    text = json.dumps(answer, indent=data.draw(st.sampled_from([None, 1])))
    cut = data.draw(st.integers(0, len(text)))
    truth = closed_value(schema, text)
    assert truth in closed.values
    assert forced_value(schema, text[:cut]) in (None, truth)
    assert forced_value(schema, text) == truth
