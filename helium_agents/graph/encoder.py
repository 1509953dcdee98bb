"""Writes values as canonical bytes: one small function per type, found by the exact type.

The format is described in `helium_agents.graph.encoding`. Nothing here knows where in a value it
is: this is the path that every call takes, and a refusal is located afterwards.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final
from weakref import WeakKeyDictionary

from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from helium_agents.errors import EncodingError
from helium_agents.graph.parts import RECORDS, Shape, class_name, shape_of

RefKey = Callable[[object], bytes | None]
"""What stands for an object that is not data (the handle of another call); `None` refuses it."""

_Encoder = Callable[[Any, RefKey | None], bytes]

INT32: Final = struct.Struct(">ci")
FLOAT: Final = struct.Struct(">d")
NAN: Final = FLOAT.pack(float("nan"))

# Classes that may be values although they are not only data.
BUILTIN_CLASSES: Final = frozenset(
    {object, type(None), bool, int, float, str, bytes, bytearray, tuple, list, dict, set, frozenset}
    | {*RECORDS}
)


# --- atoms ---------------------------------------------------------------------------------------

_SIZES = [bytes((size,)) for size in range(128)]


def _size(size: int) -> bytes:
    if size < 128:
        return _SIZES[size]
    out = bytearray()
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)


_TEXT_HEADS = [b"s" + _size(size) for size in range(1024)]


def _encode_str(value: str, _: RefKey | None = None) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError:  # lone surrogates
        data = value.encode("utf-8", "surrogatepass")
    size = len(data)
    return (_TEXT_HEADS[size] if size < 1024 else b"s" + _size(size)) + data


def _encode_int(value: int, _: RefKey | None) -> bytes:
    if -(2**31) <= value < 2**31:
        return INT32.pack(b"i", value)
    size = (value + (value < 0)).bit_length() // 8 + 1
    return b"I" + _size(size) + value.to_bytes(size, "big", signed=True)


def _encode_float(value: float, _: RefKey | None) -> bytes:
    return b"f" + (FLOAT.pack(value) if value == value else NAN)


# --- containers ----------------------------------------------------------------------------------


def _encode_sequence(tag: bytes) -> _Encoder:
    def encode_sequence(value: tuple[Any, ...] | list[Any], ref_key: RefKey | None) -> bytes:
        items = [
            _encode_str(item) if type(item) is str else ENCODERS[type(item)](item, ref_key)
            for item in value
        ]
        return tag + _size(len(items)) + b"".join(items)

    return encode_sequence


def _encode_set(tag: bytes) -> _Encoder:
    def encode_set(value: set[Any] | frozenset[Any], ref_key: RefKey | None) -> bytes:
        items = sorted([ENCODERS[type(item)](item, ref_key) for item in value])
        return tag + _size(len(items)) + b"".join(items)

    return encode_set


def _encode_dict(value: dict[Any, Any], ref_key: RefKey | None) -> bytes:
    out = [b"d", _size(len(value))]
    for key, item in value.items():
        out.append(_encode_str(key) if type(key) is str else ENCODERS[type(key)](key, ref_key))
        out.append(_encode_str(item) if type(item) is str else ENCODERS[type(item)](item, ref_key))
    return b"".join(out)


# --- objects -------------------------------------------------------------------------------------


def _encode_record(tag: bytes, shape: Shape) -> _Encoder:
    def encode_record(value: Any, ref_key: RefKey | None) -> bytes:
        try:
            parts = shape.take_apart(value)
        except ValueError as error:
            raise EncodingError(str(error)) from None
        return tag + _encode_parts(parts, ref_key)

    return encode_record


def _encode_stranger(value: Any, ref_key: RefKey | None) -> bytes:
    key = None if ref_key is None else ref_key(value)
    if key is None:
        name = ".".join(class_name(type(value)))
        raise EncodingError(f"nothing is known about values of type {name}")
    return b"r" + _size(len(key)) + key


def _encode_function(value: FunctionType, _: RefKey | None) -> bytes:
    from helium_agents.graph.version import function_version  # it encodes what a body names

    return _versioned(value, function_version(value))


def _encode_operator(value: Any, _: RefKey | None) -> bytes:
    return _versioned(value, value.__helium_version__())


def _versioned(value: Any, version: bytes) -> bytes:
    name = _encode_str(value.__module__) + _encode_str(value.__qualname__)
    return b"v" + name + _size(len(version)) + version


def _encode_instance(cls: type, shape: Shape) -> _Encoder:
    head = b"o" + _encode_class_name(cls)
    take_apart = shape.take_apart

    def encode_instance(value: Any, ref_key: RefKey | None) -> bytes:
        return head + _encode_parts(take_apart(value), ref_key)

    return encode_instance


_class_encoders: WeakKeyDictionary[type, _Encoder] = WeakKeyDictionary()


class _Encoders(dict[type, _Encoder]):
    """Encoders by exact type. Those of users' classes are kept apart, to not keep them alive."""

    def __missing__(self, cls: type) -> _Encoder:
        encoder = _class_encoders.get(cls)
        if encoder is not None:
            return encoder
        if issubclass(cls, type):
            return encode_class
        if hasattr(cls, "__helium_version__"):  # before data: an operator may be a dataclass
            return _encode_operator
        shape = shape_of(cls)
        if shape is None:
            return _encode_stranger
        return _class_encoders.setdefault(cls, _encode_instance(cls, shape))


# --- classes as values ---------------------------------------------------------------------------

_definitions: WeakKeyDictionary[type, bytes] = WeakKeyDictionary()


def _encode_class_name(cls: type) -> bytes:
    try:
        module, qualname = class_name(cls)
    except ValueError as error:
        raise EncodingError(str(error)) from None
    return _encode_str(module) + _encode_str(qualname)


def encode_class(cls: type, _: RefKey | None = None) -> bytes:
    """A class as a value: its name and its definition, so that a changed schema changes a key."""
    encoding = _definitions.get(cls)
    if encoding is None:
        definition = _encode_dict(_definition(cls), None)
        encoding = _definitions[cls] = b"c" + _encode_class_name(cls) + definition
    return encoding


def _definition(cls: Any) -> dict[str, Any]:
    if cls in BUILTIN_CLASSES:
        return {}
    if shape_of(cls) is None:
        raise EncodingError(f"the class {cls.__qualname__} is not one of data")
    if issubclass(cls, BaseModel):
        try:
            return dict(cls.model_json_schema())
        except PydanticUserError as error:
            reason = str(error).partition("\n")[0]
            raise EncodingError(f"{cls.__qualname__} has no JSON schema: {reason}") from None
    if issubclass(cls, enum.Enum):
        return {name: member.value for name, member in cls.__members__.items()}
    if issubclass(cls, tuple):
        return {name: _type_text(cls.__annotations__.get(name)) for name in cls._fields}
    return {field.name: _type_text(field.type) for field in dataclasses.fields(cls)}


def _type_text(annotation: Any) -> str:
    return ".".join(class_name(annotation)) if type(annotation) is type else str(annotation)


# --- all together -------------------------------------------------------------------------------

_encode_parts = _encode_sequence(b"t")

ENCODERS = _Encoders(
    {
        type(None): lambda value, _: b"N",
        bool: lambda value, _: b"T" if value else b"F",
        int: _encode_int,
        float: _encode_float,
        str: _encode_str,
        bytes: lambda value, _: b"b" + _size(len(value)) + value,
        bytearray: lambda value, _: b"B" + _size(len(value)) + value,
        tuple: _encode_parts,
        list: _encode_sequence(b"l"),
        dict: _encode_dict,
        set: _encode_set(b"e"),
        frozenset: _encode_set(b"E"),
        FunctionType: _encode_function,
        **{cls: _encode_record(tag, shape) for cls, (tag, shape) in RECORDS.items()},
    }
)
