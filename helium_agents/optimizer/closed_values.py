"""Closed values: the few answers that a JSON schema leaves open, and which of them are still meant.

An enum, a boolean, a constant, a short range of integers, and objects of those are closed. Of an
object that has other fields too (a verdict, and then a reason) the closed fields are a part that
can be known: of such a schema each value here is an object without the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product
from typing import Any, Final

from pydantic_core import from_json

MOST_VALUES: Final = 16
"""A schema with more is not closed: each of them is too unlikely."""

_DEEPEST: Final = 4
_NUMBER: Final = "0123456789+-.eE"
_NONE: Final = object()


@dataclass(frozen=True, slots=True)
class Closed:
    """What a schema leaves open.

    Args:
        values: JSON texts, at most `MOST_VALUES`, in the schema's order.
        is_whole: Whether each is a whole answer; otherwise it is an object without those of its
            fields that are not closed.
    """

    values: tuple[str, ...]
    is_whole: bool


def closed_values(json_schema: str) -> Closed | None:
    """The few values that fit a schema, or what is closed of them; `None` where nothing is.

    Args:
        json_schema: JSON schema text.
    """
    return _read(json_schema)[0]


def closed_value(json_schema: str, text: str) -> str | None:
    """Which of a schema's closed values an answer has; `None` where it is none of them.

    Args:
        json_schema: JSON schema text.
        text: The answer, with whatever whitespace and order of fields.
    """
    try:
        answer = from_json(text)
    except ValueError:
        return None
    if isinstance(answer, dict):
        fields = _fields(json.loads(json_schema))
        answer = {name: field["default"] for name, field in fields if "default" in field} | answer
    return _only(value for value in _read(json_schema)[1] if _is_part(value, answer))


def forced_value(json_schema: str, text_so_far: str) -> str | None:
    """The closed value that an answer will have, whatever follows; `None` while that is open.

    It is certain of answers that fit the schema and have no field twice.

    Args:
        json_schema: JSON schema text.
        text_so_far: How the answer begins; whitespace and the order of fields do not matter.
    """
    values = _read(json_schema)[1]
    text = beginning = text_so_far.lstrip()
    try:
        begun = from_json(text, allow_partial="trailing-strings")
        sure = _or_none(text)
        if sure is not _NONE and _text(sure) == _text(begun) and text[-1:] in _NUMBER:
            # a number at the end may go on; a name does not count before its value
            text = text.rstrip(_NUMBER)
            begun = from_json(text, allow_partial="trailing-strings")
            sure = _or_none(text)
    except ValueError:  # nothing yet, or the beginning of a word or number
        return _only(value for value in values if _text(value).startswith(beginning))
    return _only(value for value in values if _fits(value, sure, begun))


# --- what fits a schema --------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _read(json_schema: str) -> tuple[Closed | None, Sequence[Any]]:
    """What is closed of a schema, and the values themselves."""
    root = json.loads(json_schema)
    values = _values(root, root, 0)
    is_whole = values is not None
    if values is None and (fields := _closed_fields(root)):
        values = [dict(zip(fields, each, strict=True)) for each in product(*fields.values())]
    by_text = {_text(value): value for value in values or ()}
    return Closed(tuple(by_text), is_whole) if by_text else None, tuple(by_text.values())


def _values(schema: Any, root: dict[str, Any], depth: int) -> Sequence[Any] | None:
    """The values that fit, or `None` where these are not few."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return None
    found = _listed(schema, root, depth)
    if found is None and schema.get("type") == "object":
        found = _objects(schema, root, depth)
    return None if found is None or len(found) > MOST_VALUES else found


def _listed(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Sequence[Any] | None:
    if "$ref" in schema:
        kept = schema["$ref"].rpartition("/")
        return _values(root.get(kept[0].rpartition("/")[2], {}).get(kept[2]), root, depth + 1)
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return list(schema["enum"])
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            if union == "allOf" and len(schema[union]) > 1:
                return None
            options = [_values(option, root, depth + 1) for option in schema[union]]
            flat = [value for values in options if values is not None for value in values]
            return (
                None if None in options else list({_text(value): value for value in flat}.values())
            )
    match schema.get("type"):
        case "boolean":
            return [False, True]
        case "null":
            return [None]
        case "integer":
            low, high = schema.get("minimum"), schema.get("maximum")
            if isinstance(low, int) and isinstance(high, int):
                return range(low, high + 1)
    return None


def _objects(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Sequence[Any] | None:
    fields = dict(_fields(schema))
    if not fields or schema.get("additionalProperties", False) is not False:
        return None
    options = {}
    for name, field in fields.items():
        values = _values(field, root, depth + 1)
        if values is None or not (name in schema.get("required", ()) or "default" in field):
            return None
        options[name] = values
    rows = list(islice(product(*options.values()), MOST_VALUES + 1))
    return [dict(zip(options, row, strict=True)) for row in rows]


def _closed_fields(root: dict[str, Any]) -> dict[str, Sequence[Any]]:
    """The first closed fields of an object, as many as have few values together."""
    found: dict[str, Sequence[Any]] = {}
    number = 1
    for name, field in _fields(root):
        values = _values(field, root, 1)
        if values and name in root.get("required", ()) and number * len(values) <= MOST_VALUES:
            found[name] = values
            number *= len(values)
    return found


def _fields(schema: Any) -> list[tuple[str, dict[str, Any]]]:
    fields = schema.get("properties", {}) if isinstance(schema, dict) else {}
    return [(name, field) for name, field in fields.items() if isinstance(field, dict)]


# --- which of them an answer is ------------------------------------------------------------------


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _only(values: Iterator[Any]) -> str | None:
    """The text of a single value; `None` where there is none or another one."""
    first, second = next(values, _NONE), next(values, _NONE)
    return _text(first) if first is not _NONE and second is _NONE else None


def _or_none(text: str) -> Any:
    """What of a text is complete."""
    try:
        return from_json(text, allow_partial=True)
    except ValueError:
        return _NONE


def _is_part(value: Any, answer: Any) -> bool:
    """Whether an answer has all that a value has."""
    if isinstance(value, dict) and isinstance(answer, dict):
        return all(name in answer and _is_part(value[name], answer[name]) for name in value)
    return _text(value) == _text(answer)


def _fits(value: Any, sure: Any, begun: Any) -> bool:
    """Whether a value may be meant by what has begun, of which `sure` is complete."""
    if isinstance(value, dict) and isinstance(begun, Mapping):
        complete = sure if isinstance(sure, Mapping) else {}
        return all(
            _fits(value[name], complete.get(name, _NONE), begun[name])
            for name in value.keys() & begun.keys()
        )
    if sure is _NONE:
        return isinstance(value, str) and isinstance(begun, str) and value.startswith(begun)
    return _text(value) == _text(sure)
