"""What `schema=` asks: types and JSON schemas, told apart, made once, and parsed with care."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from helium_agents.errors import InvalidReply, PromptError
from helium_agents.graph.reply import Choice, FinishReason
from helium_agents.graph.reply_schema import parse_reply, reply_schema


class A(BaseModel):
    x: int


class B(BaseModel):
    x: int


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int


NUMBER: dict[str, Any] = {
    "type": "object",
    "properties": {"number": {"type": "integer", "minimum": 0}},
    "required": ["number"],
    "additionalProperties": False,
}


def parsed(
    asked: Any, *texts: str, finish_reason: FinishReason = "stop", max_tokens: int = 9
) -> tuple[Any, ...]:
    choices = [Choice(text, (), finish_reason) for text in texts]
    return parse_reply(reply_schema(asked), choices, max_tokens, lambda: "llm(user('a'))")


@pytest.mark.parametrize(
    ("asked", "text", "value"),
    [
        (A, '{"x": 1}', A(x=1)),
        (Colour, '"red"', Colour.RED),
        (Point, '{"x": 1}', Point(1)),
        (list[int], "[1, 2]", [1, 2]),
        (int | None, "null", None),
        (Annotated[int, Field(ge=3)], "3", 3),
        (NUMBER, '{"number": 3}', {"number": 3}),
        ({}, "[1, null]", [1, None]),
    ],
)
def test_replies_are_parsed(asked: Any, text: str, value: Any) -> None:
    assert parsed(asked, text) == (value,)
    assert parsed(asked, text, text) == (value, value)


def test_no_schema_parses_nothing() -> None:
    assert parse_reply(None, [Choice("a", (), "stop")], 9, str) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (A | B, B | A),
        (list[A | B], list[B | A]),
        (dict[str, list[A | B]], dict[str, list[B | A]]),
        (tuple[A | B, A | B], tuple[B | A, A | B]),
        (A | B | None, B | A | None),
    ],
)
def test_unions_in_another_order_are_other_schemas(one: Any, other: Any) -> None:
    first, second = reply_schema(one), reply_schema(other)
    assert first is not second and first.json_schema != second.json_schema
    assert reply_schema(one) is first


def test_a_union_is_tried_in_its_own_order() -> None:
    assert parsed(A | B, '{"x": 1}') == (A(x=1),)
    assert parsed(B | A, '{"x": 1}') == (B(x=1),)
    assert parsed(list[A | B], '[{"x": 1}]') == ([A(x=1)],)
    assert parsed(list[B | A], '[{"x": 1}]') == ([B(x=1)],)


def test_literals_that_are_equal_are_told_apart() -> None:
    assert reply_schema(Literal[1]).json_schema != reply_schema(Literal[True]).json_schema
    assert parsed(Literal[1], "1") == (1,)
    assert parsed(list[Literal[True]], "[true]") == ([True],)


def test_a_schema_is_made_once() -> None:
    for make in (lambda: A, lambda: list[A], lambda: dict[str, A | None], lambda: dict(NUMBER)):
        assert reply_schema(make()) is reply_schema(make())


def test_many_schemas_are_not_all_kept() -> None:
    for number in range(600):
        model = type("Model", (BaseModel,), {"__annotations__": {f"x{number}": int}})
        assert f"x{number}" in reply_schema(model).json_schema


def test_changing_a_dict_afterwards_changes_nothing() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"x": {"type": "integer"}}}
    made = reply_schema(schema)
    schema["properties"]["x"]["type"] = "string"
    assert made.parse('{"x": 1}') == {"x": 1}
    with pytest.raises(InvalidReply):
        made.parse('{"x": "1"}')
    assert '"integer"' in made.json_schema
    assert reply_schema(schema).parse('{"x": "1"}') == {"x": "1"}


def test_the_order_of_a_dict_counts_since_decoding_follows_it() -> None:
    one = {"properties": {"a": {}, "b": {}}}
    other = {"properties": {"b": {}, "a": {}}}
    assert list(json.loads(reply_schema(other).json_schema)["properties"]) == ["b", "a"]
    assert reply_schema(one).json_schema != reply_schema(other).json_schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "nonsense"}, r"'nonsense'.*\$\.type"),
        ({"type": "object", "required": "a"}, r"\$\.required"),
        ({"minimum": float("nan")}, "no JSON"),
        ({"enum": {1, 2}}, "no JSON.*set"),
        ({"properties": {"a": {"type": 3}}}, r"\$\.properties\.a\.type"),
    ],
)
def test_a_dict_that_is_no_json_schema_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(PromptError, match=f"schema=.*{message}"):
        reply_schema(schema)


@pytest.mark.parametrize("asked", [object(), 3, "A", A(x=1), [int], True])
def test_what_is_no_schema_is_refused(asked: Any) -> None:
    with pytest.raises(PromptError, match="JSON schema"):
        reply_schema(asked)


@pytest.mark.parametrize(
    ("asked", "text", "message"),
    [
        (A, '{"x": "y"}', r"valid integer"),
        (A, "no", "Invalid JSON"),
        (NUMBER, '{"number": -1}', r"-1 is less than the minimum of 0 \(at \$\.number\)"),
        (NUMBER, '{"number": 1, "a": 2}', "'a' was unexpected"),
        (NUMBER, "{}", "'number' is a required property"),
        (NUMBER, "no", "no JSON"),
        ({}, "NaN", "no JSON"),
    ],
)
def test_a_reply_that_does_not_fit_says_why(asked: Any, text: str, message: str) -> None:
    start = r"the reply to llm\(user\('a'\)\) does not fit schema="
    with pytest.raises(InvalidReply, match=f"{start}(?s:.*){message}"):
        parsed(asked, text)


@pytest.mark.parametrize("asked", [A, NUMBER])
def test_a_cut_reply_says_that_it_was_cut_and_where(asked: Any) -> None:
    with pytest.raises(InvalidReply, match=r"cut at max_tokens=5.*'\{\"x\": 1'.*larger") as caught:
        parsed(asked, '{"x": 1', finish_reason="length", max_tokens=5)
    assert "EOF" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_whole_reply_that_ends_at_the_limit_says_what_is_wrong_with_it() -> None:
    with pytest.raises(InvalidReply, match="'number' is a required property"):
        parsed(NUMBER, "{}", finish_reason="length")


def test_an_error_of_a_validator_comes_out_as_itself() -> None:
    class Odd(BaseException):
        pass

    for kind in (LookupError, TypeError, Odd, KeyboardInterrupt):

        class Touchy(BaseModel):
            x: int

            @field_validator("x")
            @classmethod
            def check(cls, x: int, kind: Any = kind) -> int:
                raise kind("mine")

        with pytest.raises(kind, match="mine"):
            parsed(Touchy, '{"x": 1}')


def test_a_reference_to_elsewhere_is_not_fetched() -> None:
    with pytest.raises(Exception, match=r"example\.org"):
        parsed({"$ref": "https://example.org/schema.json"}, "1")
