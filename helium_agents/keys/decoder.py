"""Reads canonical bytes back as the values they were made from, trusting none of them.

The bytes may come from a store that another program wrote to. They choose among what this file can
build, and nothing else: classes are looked up among modules that are already imported and must be
classes of data, whose instances are put together without running their code. What was read must
encode to the same bytes again, so nothing else is checked on the way. Whatever is wrong with the
bytes is a `DecodingError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helium_agents.errors import DecodingError, VersionError
from helium_agents.keys.class_names import find_class
from helium_agents.keys.encoder import ENCODERS, FLOAT
from helium_agents.keys.shapes import RECORDS, Shape, shape_of
from helium_agents.keys.versions.version import CurrentVersions


def decode(data: bytes) -> Any:
    """The value that `encode` made the bytes from, with the same types all the way down.

    Raises:
        DecodingError: The bytes are malformed or not canonical; they name a class that is not there
            or has changed; or they hold what stands for a call, an operator or a function.
    """
    reader = _Reader(bytes(data))
    try:
        value = reader.value()
        is_canonical = ENCODERS[type(value)](value, reader.versions) == data[: reader.at]
    except DecodingError:
        raise
    except RecursionError:
        raise DecodingError("the encoding is nested too deeply") from None
    except Exception as error:  # hashes, setters and constructors may raise anything
        raise DecodingError(f"the encoding is malformed ({type(error).__name__})") from error
    if reader.at != len(data):
        raise DecodingError(f"{len(data) - reader.at} bytes follow the encoding")
    if not is_canonical:
        raise DecodingError(f"the encoding of the {type(value).__qualname__} is not canonical")
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
                return size
            shift += 7

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
        return tuple(self.items())

    def items(self) -> list[Any]:
        return [self.value() for _ in range(self.size())]


def _read_dict(reader: _Reader) -> dict[Any, Any]:
    return {reader.value(): reader.value() for _ in range(reader.size())}


def _read_record(cls: type, shape: Shape) -> Callable[[_Reader], Any]:
    return lambda reader: shape.put_together(cls, reader.parts())


def _read_class_name(reader: _Reader) -> type:
    module, qualname = reader.string(), reader.string()
    cls = find_class(module, qualname)
    if cls is None:
        raise DecodingError(
            f"there is no class {module}.{qualname}: it was renamed, is local to a function, or "
            "its module is not imported"
        )
    return cls


def _check_version(reader: _Reader, cls: type) -> None:
    """Read the version of a class, which has to be the one that it has now."""
    version = reader.block()
    try:
        is_same = version == reader.versions[cls]
    except VersionError as error:
        raise DecodingError(str(error)) from None
    if not is_same:
        raise DecodingError(f"{cls.__module__}.{cls.__qualname__} has changed")


def _read_instance(reader: _Reader) -> Any:
    cls = _read_class_name(reader)
    shape = shape_of(cls)
    if shape is None:
        raise DecodingError(f"{cls.__module__}.{cls.__qualname__} is not a class of data")
    _check_version(reader, cls)
    parts = reader.parts()
    try:
        return shape.put_together(cls, parts)
    except Exception as error:
        raise DecodingError(
            f"{cls.__module__}.{cls.__qualname__} is no longer what it was when the value was "
            f"encoded: {error}"
        ) from error


def _read_class(reader: _Reader) -> type:
    cls = _read_class_name(reader)
    _check_version(reader, cls)
    return cls


def _refuse(reader: _Reader) -> Any:
    raise DecodingError("an operator or a function cannot be read back from its name")


_READERS: dict[bytes, Callable[[_Reader], Any]] = {
    b"N": lambda _: None,
    b"T": lambda _: True,
    b"F": lambda _: False,
    b"i": lambda reader: int.from_bytes(reader.take(4), "big", signed=True),
    b"I": lambda reader: int.from_bytes(reader.block(), "big", signed=True),
    b"f": lambda reader: FLOAT.unpack(reader.take(8))[0],
    b"b": _Reader.block,
    b"B": lambda reader: bytearray(reader.block()),
    b"s": _Reader.text,
    b"t": lambda reader: tuple(reader.items()),
    b"l": _Reader.items,
    b"d": _read_dict,
    b"e": lambda reader: set(reader.items()),
    b"E": lambda reader: frozenset(reader.items()),
    b"o": _read_instance,
    b"c": _read_class,
    b"v": _refuse,
    **{tag: _read_record(cls, shape) for cls, (tag, shape) in RECORDS.items()},
}
