"""What a version was computed from, to tell cheaply whether it is still the same.

A version is believed for as long as every name that led to it stands for the same object and every
function, class, container and instance on the way holds the same ones. That is compared by
identity, each time the version is asked for: a change of a global in a notebook, an item put into a
dict, an attribute set on a class are all seen. An equal object in the place of another costs a
computation, and gives the same version.

The comparison is what each call of a pure operator pays, so its loops run in C: about 60 ns a name,
200 ns a function, 1 us a class. Mutable containers are compared item by item: a large table is
better a tuple or a frozenset.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from operator import attrgetter, is_
from types import CellType, FunctionType, MappingProxyType
from typing import Any, Final

from helium_agents.keys.shapes import shape_of

UNBOUND: Final = object()
"""What a name stands for that is not defined."""

_Read = Callable[[Any], tuple[Any, ...]]

_PLAIN: tuple[Any, ...] = (None, None, {})
_read_function = attrgetter("__code__", "__defaults__", "__kwdefaults__", "__dict__")


class Watch:
    """Everything that one version was computed from; keeps all of it alive."""

    def __init__(self) -> None:
        self._owners: dict[int, Any] = {}
        self._names: dict[int, tuple[Mapping[str, Any], dict[str, Any]]] = {}
        self._functions: list[FunctionType] = []
        self._parts: list[tuple[Any, ...]] = []
        self._cells: list[CellType] = []
        self._contents: list[Any] = []
        self._classes: list[tuple[type, tuple[type, ...], list[str], list[Any]]] = []
        self._states: list[tuple[_Read, Any, tuple[Any, ...]]] = []

    def look_up(self, namespace: Mapping[str, Any], name: str) -> Any:
        """What a name stands for, which is remembered; `UNBOUND` where it is not defined."""
        value = namespace.get(name, UNBOUND)
        self._names.setdefault(id(namespace), (namespace, {}))[1][name] = value
        return value

    def add(self, owner: Any) -> None:
        """Remember what an object holds, if that may change."""
        if id(owner) in self._owners:
            return
        self._owners[id(owner)] = owner
        if isinstance(owner, FunctionType):
            self._add_function(owner)
        elif isinstance(owner, type):
            held = vars(owner)
            self._classes.append((owner, owner.__bases__, [*held], [*held.values()]))
        elif (read := _reader(type(owner))) is not None:
            self._states.append((read, owner, read(owner)))

    def _add_function(self, function: FunctionType) -> None:
        for cell in function.__closure__ or ():
            self._cells.append(cell)
            self._contents.append(cell_contents(cell))
        parts = _read_function(function)
        if parts[1:] == _PLAIN:  # then equal parts are the same ones
            self._functions.append(function)
            self._parts.append((*parts[:3], {}))
        else:
            self._states.append((_read_function, function, parts))
            self.add(function.__dict__)

    def is_same(self) -> bool:
        """Whether nothing has changed since. Raises what code of the user's raises."""
        for namespace, known in self._names.values():
            if not all(map(is_, map(namespace.get, known, repeat(UNBOUND)), known.values())):
                return False
        if [*map(_read_function, self._functions)] != self._parts:
            return False
        if self._cells and not all(map(is_, map(cell_contents, self._cells), self._contents)):
            return False
        for cls, bases, names, values in self._classes:
            held = vars(cls)
            if cls.__bases__ is not bases or [*held] != names:
                return False
            if not all(map(is_, held.values(), values)):
                return False
        for read, owner, state in self._states:
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


def _reader(cls: type) -> _Read | None:
    """What reads the state of the objects of a class; `None` where they have none."""
    if cls in (tuple, frozenset):
        return None
    reader = _READERS.get(cls)
    if reader is not None:
        return reader
    shape = shape_of(cls)
    if shape is None:
        return _read_attributes
    if shape.is_immutable:
        return None
    return lambda instance: tuple(_flat(shape.take_apart(instance)))


def _flat(parts: tuple[Any, ...]) -> Iterable[Any]:
    for part in parts:
        if type(part) is dict:
            yield from part
            yield from part.values()
        elif type(part) is tuple:
            yield from part
        else:
            yield part


def _items(mapping: Mapping[Any, Any]) -> tuple[Any, ...]:
    return (*mapping, *mapping.values())


def _read_attributes(owner: Any) -> tuple[Any, ...]:
    return _items(vars(owner))


_READERS: dict[type, _Read] = {
    **dict.fromkeys((list, set, deque, bytearray), tuple),
    **dict.fromkeys((dict, OrderedDict, MappingProxyType), _items),
    defaultdict: lambda mapping: (mapping.default_factory, *_items(mapping)),
}
