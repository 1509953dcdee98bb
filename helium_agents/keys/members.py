"""What a class holds beyond its text: the attributes that count, and the fields of data.

An attribute may be set from outside, and a constant may be computed, so all attributes count by
what they are now, except for those that Python, dataclasses, enums, attrs and pydantic make of the
rest.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from helium_agents.keys.own_code import OwnCode

_MADE_BY_PYTHON = frozenset(
    {
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__slots__"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
        *("__match_args__", "__firstlineno__", "__static_attributes__", "__type_params__"),
        *("__parameters__", "__orig_bases__", "__abstractmethods__", "_abc_impl", "_is_protocol"),
        *("__protocol_attrs__", "__non_callable_proto_members__", "_is_runtime_protocol"),
        *("__dataclass_fields__", "__dataclass_params__", "__signature__"),
        *("__class_vars__", "__private_attributes__"),
        *("_member_map_", "_value2member_map_", "_member_names_", "_member_type_", "_use_args_"),
        *("_unhashable_values_", "_unhashable_values_map_", "_hashable_values_"),
    }
)
_WRAPPERS: dict[type, tuple[str, ...]] = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),
    functools.partial: ("func", "args", "keywords"),
    functools.partialmethod: ("func", "args", "keywords"),
    functools.singledispatchmethod: ("dispatcher", "func"),
}


def held_in_wrapper(value: Any) -> list[Any] | None:
    """What a property, a static method, a partial function hold; `None` for anything else."""
    names = _WRAPPERS.get(type(value))
    return None if names is None else [getattr(value, name) for name in names]


def members_of(cls: type, own: OwnCode) -> Iterator[tuple[str, Any]]:
    """The attributes of a class that count, by name."""
    for name, member in sorted(vars(cls).items()):
        if name in _MADE_BY_PYTHON or name.startswith(("__pydantic_", "__attrs_")):
            continue
        if _is_generated(name, member, own):
            continue
        if type(member).__module__ == "_collections":  # the fields of a named tuple
            continue
        is_member = isinstance(cls, enum.EnumMeta) and name in cls.__members__
        if not is_member and type(member) is not enum.property:
            yield name, member


def fields_of(cls: Any) -> Iterator[tuple[str, Any]]:
    """What decides the fields of a class of data, by name: defaults, and the values of an enum."""
    if issubclass(cls, enum.Enum):
        for name, member in cls.__members__.items():
            yield name, member._value_
    elif issubclass(cls, BaseModel):
        for name, info in (cls.__pydantic_fields__ | cls.__private_attributes__).items():
            yield name, (_given(info.default), info.default_factory)
    elif dataclasses.is_dataclass(cls):
        params: Any = vars(cls).get("__dataclass_params__")  # a subclass may be no dataclass itself
        flags = ("repr", "eq", "order", "frozen")
        yield "", tuple(getattr(params, name, None) for name in flags)
        for field in dataclasses.fields(cls):
            defaults = _given(field.default), _given(field.default_factory)
            options = field.init, field.repr, field.compare, field.hash, field.kw_only
            yield field.name, (*options, *defaults)


def _given(default: Any) -> Any:
    return None if default is dataclasses.MISSING or default is PydanticUndefined else default


def annotated_fields_of(cls: Any) -> Iterator[tuple[str, Any]]:
    """What the text of a pydantic model says of its fields, for models without text."""
    if issubclass(cls, BaseModel):
        for name, info in cls.__pydantic_fields__.items():
            yield name, (info.annotation, tuple(info.metadata))


def is_of_library(function: FunctionType, own: OwnCode) -> bool:
    """Whether a function was written in an imported module that is not of the own code."""
    name = function.__globals__.get("__name__", "")
    module = sys.modules.get(name)
    return not own.has(name) and getattr(module, "__dict__", None) is function.__globals__


def _is_generated(name: str, member: Any, own: OwnCode) -> bool:
    """Whether a special method was made from the fields of a class, as those of dataclasses are."""
    function: Any = inspect.unwrap(getattr(member, "__func__", member))
    if name[:2] != "__" or not isinstance(function, FunctionType):
        return False
    code = function.__code__
    return (
        code.co_qualname.startswith("__create_fn__.")
        or code.co_filename.startswith("<attrs generated ")
        or function.__globals__.get("__name__", "").startswith("namedtuple_")
        or (function is member and is_of_library(function, own))
    )
