"""Reads canonical bytes back as the values they were made from, trusting none of them.

The bytes may come from a store that another program wrote to. They choose among what this file can
build, and nothing else: classes are looked up among modules that are already imported and must be
classes of data, whose instances are put together without running their code. Whatever is wrong with
the bytes is a `DecodingError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helium_agents.errors import DecodingError, VersionError
from helium_agents.keys.encoder import (
    BUILTIN_CLASSES,
    ENCODERS,
    FLOAT,
    NAN,
    class_definition,
)
from helium_agents.keys.shapes import RECORDS, Shape, find_class, shape_of
from helium_agents.keys.version import CurrentVersions


def decode(data: bytes) -> Any:
    """The value that `encode` made the bytes from, with the same types all the way down.

    Raises:
        DecodingError: The bytes are malformed or not canonical; they name a class that is not there
            or has changed; or they hold what stands for a call, an operator or a function.
    """
    reader = _Reader(bytes(data))
    try:
        value = reader.value()
    except DecodingError:
        raise
    except RecursionError:
        raise DecodingError("the encoding is nested too deeply") from None
    except Exception as error:  # hashes, setters and constructors may raise anything
        raise DecodingError(f"the encoding is malformed ({type(error).__name__})") from error
    if reader.at != len(data):
        raise DecodingError(f"{len(data) - reader.at} bytes follow the encoding")
    return value


class _Reader:
    """A position in the bytes, and what can be read there."""

    __slots__ = ("at", "data", "versions")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.versions = CurrentVersions()

    def value(self) -> Any:
        read = _READERS.get(self.take(1))
        if read is None:
            raise DecodingError(f"no encoding starts with {self.data[self.at - 1 : self.at]!r}")
        return read(self)

    def take(self, size: int) -> bytes:
        end = self.at + size
        taken = self.data[self.at : end]
        if len(taken) != size:
            raise DecodingError("the encoding is cut off")
        self.at = end
        return taken

    def size(self) -> int:
        size = shift = 0
        while True:
            byte = self.take(1)[0]
            size |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
        if size > len(self.data) - self.at:  # nothing is shorter than a byte
            raise DecodingError("the encoding is cut off")
        if shift and not byte:
            raise DecodingError("a size is not canonical")
        return size

    def block(self) -> bytes:
        return self.take(self.size())

    def text(self) -> str:
        return self.block().decode("utf-8", "surrogatepass")

    def string(self) -> str:
        """A value that has to be text."""
        if self.take(1) != b"s":
            raise DecodingError("a name is not text")
        return self.text()

    def parts(self) -> tuple[Any, ...]:
        """A value that has to be a tuple."""
        if self.take(1) != b"t":
            raise DecodingError("the parts of an object are not a tuple")
        return _read_tuple(self)


def _canonical(reader: _Reader, start: int, value: Any) -> Any:
    """The value, if the bytes from `start` to here are the ones that `encode` makes of it."""
    if reader.data[start : reader.at] != ENCODERS[type(value)](value, reader.versions):
        raise DecodingError(f"the encoding of the {type(value).__qualname__} is not canonical")
    return value


def _read_int32(reader: _Reader) -> int:
    return int.from_bytes(reader.take(4), "big", signed=True)


def _read_int(reader: _Reader) -> int:
    start = reader.at - 1
    value = int.from_bytes(reader.block(), "big", signed=True)
    _canonical(reader, start, value)
    return value


def _read_float(reader: _Reader) -> float:
    data = reader.take(8)
    value: float = FLOAT.unpack(data)[0]
    if value != value and data != NAN:
        raise DecodingError("a float is not canonical")
    return value


def _read_tuple(reader: _Reader) -> tuple[Any, ...]:
    return tuple([reader.value() for _ in range(reader.size())])


def _read_list(reader: _Reader) -> list[Any]:
    return [reader.value() for _ in range(reader.size())]


def _read_set(reader: _Reader) -> set[Any]:
    values, previous = set(), b""
    size = reader.size()
    for _ in range(size):
        start = reader.at
        values.add(reader.value())
        encoding = reader.data[start : reader.at]
        if encoding <= previous:
            raise DecodingError("the elements of a set are not sorted")
        previous = encoding
    if len(values) != size:
        raise DecodingError("two elements of a set are equal")
    return values


def _read_dict(reader: _Reader) -> dict[Any, Any]:
    size = reader.size()
    values = {reader.value(): reader.value() for _ in range(size)}
    if len(values) != size:
        raise DecodingError("two keys of a dict are equal")
    return values


def _read_record(cls: type, shape: Shape) -> Callable[[_Reader], Any]:
    def read_record(reader: _Reader) -> Any:
        start = reader.at - 1
        value = shape.put_together(cls, reader.parts())
        return _canonical(reader, start, value)

    return read_record


def _read_class_name(reader: _Reader) -> type:
    module, qualname = reader.string(), reader.string()
    cls = find_class(module, qualname)
    if cls is None:
        raise DecodingError(
            f"there is no class {module}.{qualname}: it was renamed, is local to a function, or "
            "its module is not imported"
        )
    return cls


def _check_version(reader: _Reader, cls: type) -> bytes:
    """The version of a class in the bytes, which has to be the one that it has now."""
    version = reader.block()
    try:
        is_same = version == reader.versions[cls]
    except VersionError as error:
        raise DecodingError(str(error)) from None
    if not is_same:
        raise DecodingError(f"{cls.__module__}.{cls.__qualname__} has changed")
    return version


def _read_instance(reader: _Reader) -> Any:
    start = reader.at - 1
    cls = _read_class_name(reader)
    shape = shape_of(cls)
    if shape is None:
        raise DecodingError(f"{cls.__module__}.{cls.__qualname__} is not a class of data")
    _check_version(reader, cls)
    parts = reader.parts()
    try:
        value = shape.put_together(cls, parts)
    except Exception as error:
        raise DecodingError(
            f"{cls.__module__}.{cls.__qualname__} is no longer what it was when the value was "
            f"encoded: {error}"
        ) from error
    return _canonical(reader, start, value) if shape.is_immutable else value


def _read_class(reader: _Reader) -> type:
    cls = _read_class_name(reader)
    if cls not in BUILTIN_CLASSES and shape_of(cls) is None:
        raise DecodingError(f"{cls.__module__}.{cls.__qualname__} is not a class of data")
    if not _check_version(reader, cls):
        definition = class_definition(cls)
        if reader.take(len(definition)) != definition:
            raise DecodingError(f"{cls.__module__}.{cls.__qualname__} has changed")
    return cls


def _refuse(reader: _Reader) -> Any:
    raise DecodingError("an operator or a function cannot be read back from its name")


_READERS: dict[bytes, Callable[[_Reader], Any]] = {
    b"N": lambda _: None,
    b"T": lambda _: True,
    b"F": lambda _: False,
    b"i": _read_int32,
    b"I": _read_int,
    b"f": _read_float,
    b"b": _Reader.block,
    b"B": lambda reader: bytearray(reader.block()),
    b"s": _Reader.text,
    b"t": _read_tuple,
    b"l": _read_list,
    b"d": _read_dict,
    b"e": _read_set,
    b"E": lambda reader: frozenset(_read_set(reader)),
    b"o": _read_instance,
    b"c": _read_class,
    b"v": _refuse,
    **{tag: _read_record(cls, shape) for cls, (tag, shape) in RECORDS.items()},
}
