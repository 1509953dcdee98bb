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

from helium_agents.keys.kept import KEPT
from helium_agents.keys.versions.own_code import OwnCode

_MADE_BY_PYTHON = frozenset(
    {
        *("__module__", "__qualname__", "__dict__", "__weakref__", "__slots__"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
        *("__match_args__", "__firstlineno__", "__static_attributes__", "__type_params__"),
        *("__parameters__", "__orig_bases__", "__abstractmethods__", "_abc_impl", "_is_protocol"),
        *("__protocol_attrs__", "__non_callable_proto_members__", "_is_runtime_protocol"),
        *("__dataclass_fields__", "__dataclass_params__", "__signature__"),
        *("__class_vars__", "__private_attributes__", KEPT),
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
_FIELDS = frozenset(
    {"dataclasses.Field", "pydantic.fields.FieldInfo", "pydantic.fields.ModelPrivateAttr"}
    | {"attr._make.Attribute", "attr._make.Factory"}
)


def held_in_wrapper(value: Any) -> list[Any] | None:
    """What a property, a partial function, the field of a class hold; `None` for other things."""
    cls = type(value)
    if f"{cls.__module__}.{cls.__qualname__}" in _FIELDS:
        return [(name, getattr(value, name)) for name in cls.__slots__ if name[:1] != "_"]
    if isinstance(value, BaseMetadata) and not dataclasses.is_dataclass(value):  # of pydantic's own
        return [vars(value)]
    names = _WRAPPERS.get(cls)
    return None if names is None else [getattr(value, name) for name in names]


def members_of(cls: Any, own: OwnCode) -> Iterator[tuple[str, Any]]:
    """What counts of a class beside its bases and annotations, by name."""
    for name, member in sorted(vars(cls).items()):
        if name in _MADE_BY_PYTHON or name.startswith(("__pydantic_", "__attrs_")):
            continue
        if name == "__doc__" and isinstance(member, str):  # a dataclass has its defaults in there
            yield name, re.sub(" at 0x[0-9a-f]+", "", member)
            continue
        if type(member).__module__ == "_collections":  # the fields of a named tuple
            continue
        is_member = issubclass(cls, enum.Enum) and name in cls.__members__
        if not is_member and type(member) is not enum.property:
            yield name, None if _is_generated(name, member, own) else member
    if issubclass(cls, enum.Enum):
        yield from ((name, each._value_) for name, each in cls.__members__.items())
    elif issubclass(cls, BaseModel):
        yield from (cls.__pydantic_fields__ | cls.__private_attributes__).items()
    elif dataclasses.is_dataclass(cls):
        yield from ((field.name, field) for field in dataclasses.fields(cls))
    yield "its attributes", tuple(vars(cls).get("__attrs_attrs__", ()))
    yield "its configuration", vars(cls).get("__pydantic_config__")
    if (decorators := vars(cls).get("__pydantic_decorators__")) is not None:
        for kind in dataclasses.fields(decorators):
            for name, decorator in getattr(decorators, kind.name).items():
                yield name, (kind.name, decorator.info)


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


def wrapped_in(value: Any) -> Any:
    """The function inside an operator or a decorated function."""
    for name in ("__helium_function__", "__wrapped__"):
        # Objects that answer to every name (proxies, mocks) do not have these.
        if inspect.getattr_static(value, name, None) is not None:
            inner = getattr(value, name)
            return inner if callable(inner) else None
    return None
