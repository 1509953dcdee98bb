"""What a version was computed from, to tell cheaply whether it is still the same.

A version is believed for as long as every name that led to it stands for the same object and every
function, class, container and instance on the way holds the same ones. That is compared by
identity, each time the version is asked for: a change of a global in a notebook, an item put into a
dict, an attribute set on a class are all seen. An equal object in the place of another costs a
computation, and gives the same version.

The comparison is what each call of a pure operator pays, so its loops run in C. Mutable containers
are compared item by item: a large table is better a tuple or a frozenset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import repeat
from operator import is_
from types import CellType, FunctionType
from typing import Any, Final

from helium_agents.keys.shapes import shape_of

UNBOUND: Final = object()
"""What a name stands for that is not defined."""

Read = Callable[[Any], tuple[Any, ...]]
"""What an object holds at the moment."""


class Watch:
    """Everything that one version was computed from; keeps all of it alive."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[Mapping[str, Any], dict[str, Any]]] = {}
        self._states: dict[int, tuple[Read, Any, tuple[Any, ...]]] = {}

    def look_up(self, namespace: Mapping[str, Any], name: str) -> Any:
        """What a name stands for, which is remembered; `UNBOUND` where it is not defined."""
        value = namespace.get(name, UNBOUND)
        self._names.setdefault(id(namespace), (namespace, {}))[1][name] = value
        return value

    def add(self, owner: Any, read: Read) -> None:
        """Remember what an object holds that may change."""
        if id(owner) not in self._states:
            self._states[id(owner)] = read, owner, read(owner)

    def is_same(self) -> bool:
        """Whether nothing has changed since. Raises what code of the user's raises."""
        for namespace, known in self._names.values():
            if not all(map(is_, map(namespace.get, known, repeat(UNBOUND)), known.values())):
                return False
        for read, owner, state in self._states.values():
            found = read(owner)
            if len(found) != len(state) or not all(map(is_, found, state)):
                return False
        return True


def cell_contents(cell: CellType) -> Any:
    """What a variable of an enclosing function stands for."""
    try:
        return cell.cell_contents
    except ValueError:  # assigned later
        return UNBOUND


def read_function(function: Any) -> tuple[Any, ...]:
    """Code, default values, closure and attributes of a function."""
    held = function.__code__, function.__defaults__, *read_mapping(function.__kwdefaults__ or {})
    if not function.__dict__ and function.__closure__ is None:
        return held
    cells = map(cell_contents, function.__closure__ or ())
    return (*held, *cells, *read_mapping(function.__dict__))


def read_class(cls: type) -> tuple[Any, ...]:
    """Bases and attributes of a class."""
    return (*cls.__bases__, *read_mapping(vars(cls)))


def read_mapping(mapping: Any) -> tuple[Any, ...]:
    """Keys and values, and what makes further ones."""
    return (*mapping, *mapping.values(), getattr(mapping, "default_factory", None))


def read_attributes(owner: Any) -> tuple[Any, ...]:
    """All attributes of an object."""
    return read_mapping(vars(owner))


def read_instance(instance: Any) -> tuple[Any, ...]:
    """The parts of an object of data, and what is in them."""
    shape = shape_of(type(instance))
    assert shape is not None
    held: list[Any] = []
    for part in shape.take_apart(instance):
        is_several = type(part) in (dict, tuple)
        held += read_mapping(part) if type(part) is dict else part if is_several else (part,)
    return tuple(held)


def cells_of(function: FunctionType) -> dict[str, Any]:
    """What a function has of the scopes around it, by name."""
    contents = map(cell_contents, function.__closure__ or ())
    return dict(zip(function.__code__.co_freevars, contents, strict=True))
