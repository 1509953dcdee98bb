r"""The canonical encoding: equal values have equal bytes, different values have different bytes.

Keys, draws and stored results are made of it. It is *typed* (``(1,)``, ``[1]``, ``[True]`` and
``[1.0]`` differ, and so do an enum member and its value), *injective* (every encoding starts with a
tag and knows its length, so no two sequences of encodings run together to the same bytes), and
*canonical* (no hash seed, address or memory layout shows: sets are sorted by the encoding of their
elements). Dicts keep their order, since a prompt may be built by iterating over one. That an object
is used in two places is not recorded.

    encoding  = tag payload                       one byte, then what the tag says
    size      = LEB128
    N T F                                         None, True, False
    i f       = 4 bytes, 8 bytes                  int below 2**31, float (one NaN); big-endian
    I b B s   = size bytes                        other int, bytes, bytearray, text
    t l e E   = size encoding*                    tuple, list, set, frozenset
    d         = size (encoding encoding)*         dict
    (RECORDS) = encoding                          standard library types: tuple of their parts
    o         = module qualname block encoding    instance of a class: version, tuple of its parts
    c         = module qualname block             a class: version
    v         = module qualname block             a function or operator, which cannot be decoded
    block     = size bytes

A class of the user's own counts by name and *version*: the first half of `class_version`, which
covers methods, bases and defaults, since a prompt may be made by a method. Where the encoding is
(part of) a key, an edit of the class makes it another key; where it is a stored result, it makes it
unreadable, and the call is computed anew. Classes of installed packages count by name, as their
functions do in versions.

Subclasses of the built-in types are refused: what they add to their base is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from blake3 import blake3

from helium_agents.errors import DecodingError, EncodingError, HeliumError, shown
from helium_agents.keys.decoder import decode
from helium_agents.keys.encoder import ENCODERS
from helium_agents.keys.freeze import freeze
from helium_agents.keys.shapes import shape_of
from helium_agents.keys.versions.version import CurrentVersions

__all__ = ["decode", "digest", "encode", "encode_result", "fingerprint", "freeze"]


def encode(value: Any) -> bytes:
    """The canonical bytes of a value.

    Takes None, bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset,
    Decimal, Fraction, dates and times, UUID, paths, range; enum members, named tuples, dataclasses
    and pydantic models with all their state; such classes themselves; functions, and objects with
    ``__helium_version__() -> bytes``, by name and version.

    Raises:
        EncodingError: Something in the value cannot be encoded, a class or function in it has no
            version, or code of its own raised (which is then the cause); the message says where.
    """
    try:
        return _encode(value)
    except Exception as error:
        cause = None if isinstance(error, HeliumError | RecursionError) else error
        raise _refusal(value, error, _encode, _NO_KEY) from cause


def encode_result(value: Any) -> bytes:
    """The canonical bytes of a value, if `decode` can read them.

    Raises:
        EncodingError: It cannot be encoded, or not be read again: it holds a function, an operator,
            or something of a class that cannot be found by its name; the message says where.
    """
    data = encode(value)
    try:
        decode(data)
    except DecodingError as error:
        raise _refusal(value, error, lambda part: decode(_encode(part)), _NO_RECORD) from None
    return data


def digest(data: bytes) -> bytes:
    """BLAKE3 of the bytes, 32 bytes: cryptographic, since a store may hold what others wrote."""
    return blake3(data).digest()


def fingerprint(*parts: Any) -> bytes:
    """The digest of what the parts are, one by one: ``"ab", "c"`` is not ``"a", "bc"``."""
    return digest(encode(parts))


def _encode(value: Any) -> bytes:
    return ENCODERS[type(value)](value, CurrentVersions())


# --- refusals ------------------------------------------------------------------------------------

_NO_KEY = (
    "{where} cannot be part of a key: {reason}. Pass plain data, a dataclass or a pydantic model "
    "in its place, or drop pure=True from the operator."
)
_NO_RECORD = (
    "{where} could not be read again: {reason}. Return plain data, or instances of classes that "
    "stand at the top of a module."
)
_TOO_DEEP = "it contains itself or is nested too deeply"
_MAX_STEPS = 100  # into what is nested too deeply, where each costs a whole attempt


def _refusal(
    value: Any, error: Exception, attempt: Callable[[Any], object], text: str
) -> EncodingError:
    """Says where in the value the culprit is. Encoding itself keeps no path: it is the hot path."""
    where = ""
    try:
        for _ in range(_MAX_STEPS):
            culprit = _culprit(value, attempt, is_root=not where)
            if culprit is None:
                break
            label, value, error = culprit
            where += label
        reason = f"code of its own raised {shown(error, 1000)}"
        if isinstance(error, HeliumError):
            reason = str(error).rstrip(".")
    except RecursionError:  # already our caller was deep down
        error = RecursionError()
    if isinstance(error, RecursionError):
        reason = _TOO_DEEP
    where = where.removeprefix(".") or "the value"
    if len(where) > 200:
        where = f"{where[:100]}...{where[-50:]}"
    return EncodingError(text.format(where=where, reason=reason), where)


def _culprit(
    value: Any, attempt: Callable[[Any], object], *, is_root: bool
) -> tuple[str, Any, Exception] | None:
    """The first thing directly in `value` that cannot be encoded: where, what, why."""
    try:
        children = list(_children(value, is_root=is_root))
    except Exception:  # it is the value itself that cannot be taken apart, as its error says
        return None
    for label, child in children:
        try:
            attempt(child)
        except Exception as error:
            return label, child, error
    return None


def _children(value: Any, *, is_root: bool) -> Iterator[tuple[str, Any]]:
    cls = type(value)
    if cls is dict:
        for key, item in value.items():
            yield f"{{key {shown(key, 40)}}}", key
            # The arguments of a call come as a dict: `row`, not `['row']`.
            is_argument = is_root and type(key) is str and key.isidentifier()
            yield key if is_argument else f"[{shown(key, 40)}]", item
    elif cls in (list, tuple):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif cls in (set, frozenset):
        yield from ((f"{{{shown(item, 40)}}}", item) for item in value)
    elif not isinstance(value, type) and (shape := shape_of(cls)) is not None:
        for part in shape.take_apart(value):
            if type(part) is dict:
                yield from ((f".{name}", item) for name, item in part.items())
