"""Takes objects apart into plain parts, and puts them together again without running their code.

A *shape* knows how: there is one for each immutable type of the standard library that may be part
of a key, and one for each kind of class that is only data (enums, named tuples, dataclasses,
pydantic models). Encoding, decoding and freezing are then the same walk over parts.

Shapes carry the whole state of an object, not only what its `__eq__` compares: a prompt may be made
from anything that a method can see. Cached properties are left out, since they can be computed
again; a class with state that is not seen has no shape (a subclass of `str` or of an exception,
one with slots that are no fields).
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import pathlib
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from helium_agents.errors import EncodingError

Parts = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """How objects of one type come apart.

    Args:
        take_apart: The parts of an object. A part that is a dict maps attribute names to values.
        put_together: The object of a class that has these parts. Raises anything where the parts
            do not fit the class.
        is_immutable: Whether the object may be shared instead of copied.
    """

    take_apart: Callable[[Any], Parts]
    put_together: Callable[[Any, Parts], Any]
    is_immutable: bool = False


# --- standard library ----------------------------------------------------------------------------


def _record(take_apart: Callable[[Any], Parts]) -> Shape:
    """A shape whose parts are the arguments of the constructor."""
    return Shape(take_apart, lambda cls, parts: cls(*parts), is_immutable=True)


def _take_datetime(moment: datetime) -> Parts:
    clock = (moment.hour, moment.minute, moment.second, moment.microsecond)
    return (moment.year, moment.month, moment.day, *clock, moment.tzinfo, moment.fold)


def _put_datetime(_: object, parts: Parts) -> datetime:
    return datetime(*parts[:-1], fold=parts[-1])


def _take_time(moment: time) -> Parts:
    clock = (moment.hour, moment.minute, moment.second, moment.microsecond)
    return (*clock, moment.tzinfo, moment.fold)


def _put_time(_: object, parts: Parts) -> time:
    return time(*parts[:-1], fold=parts[-1])


def _take_zone(zone: ZoneInfo) -> Parts:
    if zone.key is None:
        raise EncodingError("it was made from a file, and has no key")
    return (zone.key,)


_path = _record(lambda path: (str(path),))

# The letter is the tag in the encoding: never give a letter a second meaning.
RECORDS: Mapping[type, tuple[bytes, Shape]] = MappingProxyType(
    {
        complex: (b"C", _record(lambda number: (number.real, number.imag))),
        # `str` of a Decimal is exact, but "E" or "e" depends on the thread's context.
        Decimal: (b"D", _record(lambda number: (str(number).upper(),))),
        Fraction: (b"Q", _record(lambda number: (number.numerator, number.denominator))),
        datetime: (b"W", Shape(_take_datetime, _put_datetime, is_immutable=True)),
        date: (b"Y", _record(lambda day: (day.year, day.month, day.day))),
        time: (b"H", Shape(_take_time, _put_time, is_immutable=True)),
        timedelta: (b"V", _record(lambda span: (span.days, span.seconds, span.microseconds))),
        timezone: (b"Z", _record(lambda zone: zone.__getinitargs__())),
        ZoneInfo: (b"z", _record(_take_zone)),
        UUID: (b"U", _record(lambda uuid: (uuid.hex,))),
        pathlib.PurePosixPath: (b"p", _path),
        pathlib.PureWindowsPath: (b"w", _path),
        pathlib.PosixPath: (b"P", _path),
        pathlib.WindowsPath: (b"X", _path),
        range: (b"R", _record(lambda numbers: (numbers.start, numbers.stop, numbers.step))),
    }
)


# --- classes that are only data ------------------------------------------------------------------


def _take_enum(member: enum.Enum) -> Parts:
    # The value counts as well as the name: a body may read it without naming the class. A flag made
    # of several members has no name of its own, and "A|B" would depend on the Python version.
    is_named = member._name_ in type(member).__members__
    return (member._name_ if is_named else None, {"value": member._value_})


def _put_enum(cls: type[enum.Enum], parts: Parts) -> enum.Enum:
    name, attributes = parts
    return cls(attributes["value"]) if name is None else cls.__members__[name]


_ENUM = Shape(_take_enum, _put_enum, is_immutable=True)


def _beyond(value: object, names: AbstractSet[str]) -> dict[str, Any]:
    """Attributes of `value` other than `names`, sorted, without what can be computed again."""
    attributes: dict[str, Any] = getattr(value, "__dict__", {})
    if attributes.keys() <= names:
        return {}
    cls = type(value)
    return {
        name: attributes[name]
        for name in sorted(attributes.keys() - names)
        if name != "__orig_class__"  # typing's note on instances of generic classes
        and not isinstance(inspect.getattr_static(cls, name, None), cached_property)
    }


def _set_attributes(value: object, attributes: Mapping[str, Any]) -> None:
    for name, attribute in attributes.items():
        object.__setattr__(value, name, attribute)  # also where the class is frozen


def _check_names(cls: type, found: Collection[str], declared: Collection[str]) -> None:
    if set(found) != set(declared):
        raise ValueError(f"{cls.__qualname__} has the fields {[*declared]}, not {[*found]}")


def _named_tuple_shape(cls: Any) -> Shape:
    def take_apart(value: Any) -> Parts:
        return dict(zip(cls_fields, value, strict=True)), _beyond(value, frozenset())

    def put_together(cls: Any, parts: Parts) -> Any:
        values, beyond = parts
        _check_names(cls, values, cls._fields)
        value = tuple.__new__(cls, [values[name] for name in cls._fields])
        _set_attributes(value, beyond)
        return value

    cls_fields: tuple[str, ...] = cls._fields
    return Shape(take_apart, put_together)


def _dataclass_shape(cls: Any) -> Shape:
    fields = tuple(field.name for field in dataclasses.fields(cls))
    field_set = frozenset(fields)

    def take_apart(value: Any) -> Parts:
        missing: tuple[str, ...] = ()
        try:
            attributes = {name: getattr(value, name) for name in fields}
        except AttributeError:  # init=False, and not set yet
            attributes = {name: getattr(value, name) for name in fields if hasattr(value, name)}
            missing = tuple(name for name in fields if name not in attributes)
        return attributes, missing, _beyond(value, field_set)

    def put_together(cls: Any, parts: Parts) -> Any:
        attributes, missing, beyond = parts
        _check_names(cls, [*attributes, *missing], fields)
        value = object.__new__(cls)
        _set_attributes(value, attributes)
        _set_attributes(value, beyond)
        return value

    return Shape(take_apart, put_together)


def _take_model(model: BaseModel) -> Parts:
    fields = type(model).__pydantic_fields__
    # Not sorted: pydantic dumps fields in the order of the instance's own dict.
    attributes = {name: value for name, value in model.__dict__.items() if name in fields}
    missing = tuple(name for name in fields if name not in attributes)
    private = model.__pydantic_private__
    return (
        attributes,
        missing,
        _beyond(model, fields.keys()),
        tuple(sorted(model.__pydantic_fields_set__)),
        model.__pydantic_extra__,
        None if private is None else {name: private[name] for name in sorted(private)},
    )


def _put_model(cls: type[BaseModel], parts: Parts) -> BaseModel:
    attributes, missing, beyond, fields_set, extra, private = parts
    _check_names(cls, [*attributes, *missing], cls.__pydantic_fields__)
    model = cls.__new__(cls)
    # What copy and pickle do: no validator, `model_post_init` or overridden method runs.
    BaseModel.__setstate__(
        model,
        {
            "__dict__": {**attributes, **beyond},
            "__pydantic_fields_set__": set(fields_set),
            "__pydantic_extra__": extra,
            "__pydantic_private__": private,
        },
    )
    return model


_MODEL = Shape(_take_model, _put_model)

_shapes: WeakKeyDictionary[type, Shape] = WeakKeyDictionary()


def shape_of(cls: type) -> Shape | None:
    """The shape of a class that is only data: an enum, named tuple, dataclass or pydantic model."""
    shape = _shapes.get(cls)
    if shape is None:
        shape = _make_shape(cls)
        if shape is not None:
            _shapes[cls] = shape
    return shape


def _make_shape(cls: type) -> Shape | None:
    if issubclass(cls, enum.Enum):
        return _ENUM
    if issubclass(cls, tuple) and _is_field_names(getattr(cls, "_fields", None)):
        return None if _has_hidden_state(cls, but=tuple) else _named_tuple_shape(cls)
    if _has_hidden_state(cls):
        return None
    if issubclass(cls, BaseModel):
        return _MODEL
    is_plain = dataclasses.is_dataclass(cls) and not _has_slots_beyond_fields(cls)
    return _dataclass_shape(cls) if is_plain else None


def _is_field_names(names: object) -> bool:
    return isinstance(names, tuple) and all(type(name) is str for name in names)


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: not one of the interpreter's own types


def is_static(cls: type) -> bool:
    """Whether a class is one of the interpreter's own types, which nobody can change."""
    return not cls.__flags__ & _HEAP_TYPE


def _has_hidden_state(cls: type, but: type = object) -> bool:
    """Whether instances hold something that is in no attribute, as `str` and exceptions do."""
    return any(is_static(base) for base in cls.__mro__ if base not in (but, object))


def _has_slots_beyond_fields(cls: Any) -> bool:
    names = {field.name for field in dataclasses.fields(cls)} | {"__dict__", "__weakref__"}
    slots = [vars(base).get("__slots__", ()) for base in cls.__mro__]
    return any({each} - names if isinstance(each, str) else {*each} - names for each in slots)
