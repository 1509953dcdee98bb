"""What of a class counts: its attributes, and what decides the fields of a class of data.

An attribute may be set from outside, and a constant may be computed, so all attributes count by
what they are now, except for those that Python, dataclasses, enums, attrs and pydantic make of the
rest.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import re
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from annotated_types import BaseMetadata
from pydantic import BaseModel
from pydantic.fields import FieldInfo, ModelPrivateAttr

from helium_agents.keys.own_code import OwnCode

_MADE_BY_PYTHON = frozenset(
    {
        *("__module__", "__qualname__", "__dict__", "__weakref__", "__slots__"),
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
    slice: ("start", "stop", "step"),
    re.Pattern: ("pattern", "flags"),
}


def held_in_wrapper(value: Any) -> list[Any] | None:
    """What a property, a partial function, the field of a class hold; `None` for other things."""
    if isinstance(value, dataclasses.Field | FieldInfo | ModelPrivateAttr):
        slots = (name for name in type(value).__slots__ if not name.startswith("_"))
        return [(name, getattr(value, name)) for name in slots]
    if isinstance(value, BaseMetadata) and not dataclasses.is_dataclass(value):  # of pydantic's own
        return [vars(value)]
    names = _WRAPPERS.get(type(value))
    return None if names is None else [getattr(value, name) for name in names]


def members_of(cls: type, own: OwnCode) -> Iterator[tuple[str, Any]]:
    """What counts of a class beside its bases and annotations, by name."""
    for name, member in sorted(vars(cls).items()):
        if name in _MADE_BY_PYTHON or name.startswith(("__pydantic_", "__attrs_")):
            continue
        if name == "__doc__" and isinstance(member, str):  # a dataclass has its defaults in there
            member = re.sub(" at 0x[0-9a-f]+", "", member)
        if _is_generated(name, member, own):
            continue
        if type(member).__module__ == "_collections":  # the fields of a named tuple
            continue
        is_member = isinstance(cls, enum.EnumMeta) and name in cls.__members__
        if not is_member and type(member) is not enum.property:
            yield name, member
    yield from _fields_of(cls)


def _fields_of(cls: Any) -> Iterator[tuple[str, Any]]:
    if issubclass(cls, enum.Enum):
        yield from ((name, member._value_) for name, member in cls.__members__.items())
    elif issubclass(cls, BaseModel):
        yield from (cls.__pydantic_fields__ | cls.__private_attributes__).items()
        for kind in (item.name for item in dataclasses.fields(cls.__pydantic_decorators__)):
            for name, decorator in getattr(cls.__pydantic_decorators__, kind).items():
                yield name, (kind, decorator.info)
    elif dataclasses.is_dataclass(cls):
        params: Any = vars(cls).get("__dataclass_params__")  # a subclass may be no dataclass itself
        flags = ("repr", "eq", "order", "frozen")
        yield "its options", tuple(getattr(params, name, None) for name in flags)
        for field in dataclasses.fields(cls):
            yield field.name, field


def _is_generated(name: str, member: Any, own: OwnCode) -> bool:
    """Whether a special method was made from the fields of a class, as those of dataclasses are."""
    function: Any = inspect.unwrap(getattr(member, "__func__", member))
    if name[:2] != "__" or not isinstance(function, FunctionType):
        return False
    code, module = function.__code__, function.__globals__.get("__name__", "")
    return (
        code.co_qualname.startswith("__create_fn__.")
        or code.co_filename.startswith("<attrs generated ")
        or module.startswith("namedtuple_")
        or (function is member and "<locals>" in code.co_qualname and not own.has(module))
    )
