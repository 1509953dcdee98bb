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

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from operator import is_
from types import CellType, FunctionType, MappingProxyType
from typing import Any, Final

from helium_agents.keys.shapes import shape_of

UNBOUND: Final = object()
"""What a name stands for that is not defined."""

_Read = Callable[[Any], tuple[Any, ...]]


class Watch:
    """Everything that one version was computed from; keeps all of it alive."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[Mapping[str, Any], dict[str, Any]]] = {}
        self._states: dict[int, tuple[_Read, Any, tuple[Any, ...]]] = {}

    def look_up(self, namespace: Mapping[str, Any], name: str) -> Any:
        """What a name stands for, which is remembered; `UNBOUND` where it is not defined."""
        value = namespace.get(name, UNBOUND)
        self._names.setdefault(id(namespace), (namespace, {}))[1][name] = value
        return value

    def add(self, owner: Any) -> None:
        """Remember what an object holds, if that may change."""
        if id(owner) not in self._states and (read := _reader(owner)) is not None:
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


def _reader(owner: Any) -> _Read | None:
    if isinstance(owner, FunctionType):
        return _read_function
    if isinstance(owner, type):
        return _read_class
    if type(owner) in _READERS:
        return _READERS[type(owner)]
    shape = shape_of(type(owner))
    if shape is None:
        return _read_attributes
    if shape.is_immutable:
        return None
    return lambda instance: tuple(_flat(shape.take_apart(instance)))


def _read_function(function: Any) -> tuple[Any, ...]:
    held = function.__code__, function.__defaults__, *_items(function.__kwdefaults__ or {})
    if not function.__dict__ and function.__closure__ is None:
        return held
    return (*held, *map(cell_contents, function.__closure__ or ()), *_items(function.__dict__))


def _read_class(cls: type) -> tuple[Any, ...]:
    return (*cls.__bases__, *_items(vars(cls)))


def _flat(parts: tuple[Any, ...]) -> Iterable[Any]:
    for part in parts:
        if type(part) is dict:
            yield from _items(part)
        elif type(part) is tuple:
            yield from part
        else:
            yield part


def _items(mapping: Mapping[Any, Any]) -> tuple[Any, ...]:
    return (*mapping, *mapping.values())


def _read_attributes(owner: Any) -> tuple[Any, ...]:
    return _items(vars(owner))


_READERS: dict[type, _Read | None] = {
    **dict.fromkeys((list, set, deque, bytearray), tuple),
    **dict.fromkeys((dict, OrderedDict, MappingProxyType), _items),
    **dict.fromkeys((tuple, frozenset), None),
    defaultdict: lambda mapping: (mapping.default_factory, *_items(mapping)),
}
