"""Copies a value so that later changes to the original are not seen.

A call's arguments are part of its key from the moment of the call; what the operator receives must
be what the key says, even when the caller goes on to append to the list that it passed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from helium_agents.errors import EncodingError
from helium_agents.keys.shapes import RECORDS, shape_of

_SHARED = frozenset({type(None), bool, int, float, str, bytes, *RECORDS})


def freeze(value: Any) -> Any:
    """An independent copy of a value that `encode` takes.

    Classes are kept, without running their code; immutable values are shared. What is not data
    (a `Ref`, an operator, a function, a class) is passed through: `encode` decides whether it may
    be there at all. Two places that hold the same list get one copy each.

    Raises:
        EncodingError: The value contains itself, or is nested too deeply, or code of its own (a
            hash, a property) raised, which is then the cause.
    """
    try:
        return _freeze(value)
    except RecursionError:
        raise EncodingError(
            "the value contains itself or is nested too deeply, so that it cannot be copied"
        ) from None
    except Exception as error:
        raise EncodingError(
            f"the value cannot be copied: code of its own raised {type(error).__name__}"
        ) from error


def _freeze(value: Any) -> Any:  # and no `map`, which would go deep on the C stack
    cls = type(value)
    if cls in _SHARED:
        return value
    container = _CONTAINERS.get(cls)
    if container is not None:
        return container(value)
    shape = None if isinstance(value, type) else shape_of(cls)
    if shape is None or shape.is_immutable:
        return value
    parts = shape.take_apart(value)
    copies = tuple([_freeze(part) for part in parts])
    if _is_frozen_class(cls) and all(map(_is_same, parts, copies)):
        return value
    return shape.put_together(cls, copies)


def _is_frozen_class(cls: Any) -> bool:
    params = cls.__dict__.get("__dataclass_params__")
    return issubclass(cls, tuple) if params is None else params.frozen


def _is_same(part: Any, copy: Any) -> bool:
    """Whether nothing in the part had to be copied; the dict of attributes is always a new one."""
    if type(part) is dict:
        return all(copy[name] is value for name, value in part.items())
    return part is copy


def _freeze_tuple(value: tuple[Any, ...]) -> tuple[Any, ...]:
    copies = tuple([_freeze(item) for item in value])
    return value if all(map(operator.is_, value, copies)) else copies


def _freeze_frozenset(value: frozenset[Any]) -> frozenset[Any]:
    copies = [(item, _freeze(item)) for item in value]
    if all(item is copy for item, copy in copies):
        return value
    return frozenset(copy for _, copy in copies)


_CONTAINERS: dict[type, Callable[[Any], Any]] = {
    bytearray: bytearray,
    tuple: _freeze_tuple,
    list: lambda value: [_freeze(item) for item in value],
    dict: lambda value: {_freeze(key): _freeze(item) for key, item in value.items()},
    set: lambda value: {_freeze(item) for item in value},
    frozenset: _freeze_frozenset,
}
