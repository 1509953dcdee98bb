"""Writes values as canonical bytes: one small function per type, found by the exact type.

The format is described in `helium_agents.keys.encoding`. Nothing here knows where in a value it
is: this is the path that every call takes, and a refusal is located afterwards. What user code
raises on the way comes out as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, Final
from weakref import WeakKeyDictionary

from helium_agents.errors import EncodingError
from helium_agents.keys.class_names import class_name
from helium_agents.keys.shapes import RECORDS, Shape, shape_of
from helium_agents.keys.versions.own_code import counts_by_name

Versions = Mapping[Any, bytes]
"""The version of each class and function in a value; see `version.CurrentVersions`."""

_Encoder = Callable[[Any, Versions], bytes]

_INT32: Final = struct.Struct(">ci")
FLOAT: Final = struct.Struct(">d")
_NAN: Final = FLOAT.pack(float("nan"))

# Classes that may be values although they are not only data.
_BUILTIN_CLASSES: Final = frozenset(
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


def _encode_str(value: str, _: object = None) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError:  # lone surrogates
        data = value.encode("utf-8", "surrogatepass")
    size = len(data)
    return (_TEXT_HEADS[size] if size < 1024 else b"s" + _size(size)) + data


def _encode_int(value: int, _: object) -> bytes:
    if -(2**31) <= value < 2**31:
        return _INT32.pack(b"i", value)
    size = (value + (value < 0)).bit_length() // 8 + 1
    return b"I" + _size(size) + value.to_bytes(size, "big", signed=True)


def _encode_float(value: float, _: object) -> bytes:
    return b"f" + (FLOAT.pack(value) if value == value else _NAN)


# --- containers ----------------------------------------------------------------------------------


def _encode_sequence(tag: bytes) -> _Encoder:
    def encode_sequence(value: tuple[Any, ...] | list[Any], versions: Versions) -> bytes:
        items = [
            _encode_str(item) if type(item) is str else ENCODERS[type(item)](item, versions)
            for item in value
        ]
        return tag + _size(len(items)) + b"".join(items)

    return encode_sequence


def _encode_set(tag: bytes) -> _Encoder:
    def encode_set(value: set[Any] | frozenset[Any], versions: Versions) -> bytes:
        items = sorted([ENCODERS[type(item)](item, versions) for item in value])
        return tag + _size(len(items)) + b"".join(items)

    return encode_set


def _encode_dict(value: dict[Any, Any], versions: Versions) -> bytes:
    out = [b"d", _size(len(value))]
    for key, item in value.items():
        out.append(_encode_str(key) if type(key) is str else ENCODERS[type(key)](key, versions))
        out.append(_encode_str(item) if type(item) is str else ENCODERS[type(item)](item, versions))
    return b"".join(out)


# --- objects -------------------------------------------------------------------------------------


def _encode_record(tag: bytes, shape: Shape) -> _Encoder:
    return lambda value, versions: tag + _encode_parts(shape.take_apart(value), versions)


def _encode_stranger(value: Any, _: object) -> bytes:
    name = ".".join(class_name(type(value)))
    raise EncodingError(f"nothing is known about values of type {name}")


def _head(tag: bytes, module: str, qualname: str) -> bytes:
    return tag + _encode_str(module) + _encode_str(qualname)


def _block(data: bytes) -> bytes:
    return _size(len(data)) + data


def _encode_function(value: FunctionType, versions: Versions) -> bytes:
    return _head(b"v", value.__module__, value.__qualname__) + _block(versions[value])


def _encode_operator(value: Any, _: object) -> bytes:
    version = value.__helium_version__()
    return _head(b"v", value.__module__, value.__qualname__) + _block(version)


def _encode_class(cls: type, versions: Versions) -> bytes:
    if cls not in _BUILTIN_CLASSES and shape_of(cls) is None:
        raise EncodingError(f"the class {cls.__qualname__} is not one of data")
    return _head(b"c", *class_name(cls)) + _block(versions[cls])


def _encode_instance(cls: type, shape: Shape) -> _Encoder:
    head, is_named, take_apart = (
        _head(b"o", *class_name(cls)),
        counts_by_name(cls),
        shape.take_apart,
    )

    def encode_instance(value: Any, versions: Versions) -> bytes:
        version = b"" if is_named else versions[type(value)]
        return head + _block(version) + _encode_parts(take_apart(value), versions)

    return encode_instance


_class_encoders: WeakKeyDictionary[type, _Encoder] = WeakKeyDictionary()


class _Encoders(dict[type, _Encoder]):
    """Encoders by exact type. Those of users' classes are kept apart, to not keep them alive."""

    def __missing__(self, cls: type) -> _Encoder:
        encoder = _class_encoders.get(cls)
        if encoder is not None:
            return encoder
        if issubclass(cls, type):
            return _encode_class
        if is_operator_class(cls):  # before data: an operator may be a dataclass
            return _encode_operator
        shape = shape_of(cls)
        if shape is None:
            return _encode_stranger
        return _class_encoders.setdefault(cls, _encode_instance(cls, shape))


def is_operator_class(cls: type) -> bool:
    """Whether objects of a class say which version they are."""
    return callable(getattr(cls, "__helium_version__", None))


# --- all together -------------------------------------------------------------------------------

_encode_parts = _encode_sequence(b"t")

ENCODERS = _Encoders(
    {
        type(None): lambda value, _: b"N",
        bool: lambda value, _: b"T" if value else b"F",
        int: _encode_int,
        float: _encode_float,
        str: _encode_str,
        bytes: lambda value, _: b"b" + _block(value),
        bytearray: lambda value, _: b"B" + _block(value),
        tuple: _encode_parts,
        list: _encode_sequence(b"l"),
        dict: _encode_dict,
        set: _encode_set(b"e"),
        frozenset: _encode_set(b"E"),
        FunctionType: _encode_function,
        **{cls: _encode_record(tag, shape) for cls, (tag, shape) in RECORDS.items()},
    }
)
