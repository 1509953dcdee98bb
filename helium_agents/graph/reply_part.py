"""Part of a reply's value: the fields that are known, in an object that lacks the others.

Whoever reads one of the others is stopped by an exception, as a guess may be that knows a verdict
and not yet the reasons for it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints, is_typeddict

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from helium_agents.errors import InvalidReply


def part_of(asked: Any, text: str) -> Any:
    """A value of `schema=` of which only some fields are known.

    Validators of whole objects do not see it, and defaults are not filled in.

    Args:
        asked: What was given as `schema=`.
        text: The fields that are known, as a JSON object.

    Raises:
        InvalidReply: They do not fit, or no part can be made of what was asked.
    """
    known = from_json(text)
    if not isinstance(known, dict):
        raise InvalidReply(f"{text} is no object, so it is no part of one")
    if isinstance(asked, dict):
        return known
    if isinstance(asked, type) and issubclass(asked, BaseModel):
        types = {name: field.annotation for name, field in asked.model_fields.items()}
        return _model(asked, _fields(known, types))
    if is_typeddict(asked):
        return _fields(known, get_type_hints(asked))
    if isinstance(asked, type) and dataclasses.is_dataclass(asked):
        made = object.__new__(asked)
        for name, value in _fields(known, get_type_hints(asked)).items():
            object.__setattr__(made, name, value)  # it may be frozen
        return made
    raise InvalidReply(f"no part can be made of {asked!r}")


def _fields(known: dict[str, Any], types: dict[str, Any]) -> dict[str, Any]:
    """The values of fields, each as its type has it."""
    found = {}
    for name, value in known.items():
        if name not in types:  # it has an alias
            raise InvalidReply(f"there is no field {name!r}")
        try:
            found[name] = TypeAdapter(types[name]).validate_json(to_json(value))
        except ValidationError as error:
            raise InvalidReply(str(error)) from error
    return found


def _model(asked: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    made = asked.model_construct(set(values), **values)
    for name in asked.model_fields.keys() - values.keys():
        made.__dict__.pop(name, None)  # its default
    return made
