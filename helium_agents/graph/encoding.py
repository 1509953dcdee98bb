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
    o         = module qualname encoding          instance of a class: tuple of its parts
    c         = module qualname encoding          a class, and its definition
    v         = module qualname size bytes        an operator or function   \  stand for what
    r         = size bytes                        what `ref_key` answered   /  cannot be decoded

Subclasses of the built-in types are refused: what they add to their base is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blake3 import blake3

from helium_agents.errors import EncodingError
from helium_agents.graph.decoder import decode
from helium_agents.graph.encoder import ENCODERS, RefKey
from helium_agents.graph.freeze import freeze
from helium_agents.graph.parts import shape_of

__all__ = ["RefKey", "decode", "digest", "encode", "fingerprint", "freeze"]


def encode(value: Any, *, ref_key: RefKey | None = None) -> bytes:
    """The canonical bytes of a value.

    Takes None, bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset,
    Decimal, Fraction, dates and times, UUID, paths, range; enum members, named tuples, dataclasses
    and pydantic models with all their state; such classes themselves; functions, and objects with
    ``__helium_version__() -> bytes``, by name and version.

    Args:
        value: What to encode.
        ref_key: Called with each object of another type.

    Raises:
        EncodingError: Something in the value cannot be encoded; the message says where.
        VersionError: A function in the value has no version.
    """
    try:
        return ENCODERS[type(value)](value, ref_key)
    except (EncodingError, RecursionError) as error:
        raise _explain(value, ref_key, error) from None


def digest(data: bytes) -> bytes:
    """BLAKE3 of the bytes, 32 bytes: cryptographic, since a store may hold what others wrote."""
    return blake3(data).digest()


def fingerprint(*parts: Any) -> bytes:
    """The digest of what the parts are, one by one: ``"ab", "c"`` is not ``"a", "bc"``."""
    return digest(encode(parts))


# --- refusals ------------------------------------------------------------------------------------


def _explain(value: Any, ref_key: RefKey | None, error: Exception) -> EncodingError:
    """Says where in the value the culprit is. Encoding itself keeps no path: it is the hot path."""
    path, above = "", set[int]()
    while id(value) not in above:
        above.add(id(value))
        culprit = _culprit(value, ref_key, is_root=not path)
        if culprit is None:
            reason = str(error) if isinstance(error, EncodingError) else "it is nested too deeply"
            return _refusal(path, reason)
        label, value, error = culprit
        path += label
    return _refusal(path, "it contains itself")


def _culprit(
    value: Any, ref_key: RefKey | None, *, is_root: bool
) -> tuple[str, Any, Exception] | None:
    """The first thing directly in `value` that cannot be encoded: where, what, why."""
    for label, child in _children(value, is_root=is_root):
        try:
            ENCODERS[type(child)](child, ref_key)
        except (EncodingError, RecursionError) as error:
            return label, child, error
    return None


def _refusal(path: str, reason: str) -> EncodingError:
    where = path.removeprefix(".") or "the value"
    if len(where) > 200:
        where = f"{where[:100]}...{where[-50:]}"
    return EncodingError(
        f"{where} cannot be part of a key: {reason}. Pass plain data, a dataclass or a pydantic "
        "model in its place, or drop pure=True from the operator.",
        where,
    )


def _children(value: Any, *, is_root: bool) -> Iterator[tuple[str, Any]]:
    cls = type(value)
    if cls is dict:
        for key, item in value.items():
            yield f"{{key {key!r:.40}}}", key
            # The arguments of a call come as a dict: `row`, not `['row']`.
            is_argument = is_root and type(key) is str and key.isidentifier()
            yield key if is_argument else f"[{key!r:.40}]", item
    elif cls in (list, tuple):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif cls in (set, frozenset):
        yield from ((f"{{{item!r:.40}}}", item) for item in value)
    elif not isinstance(value, type) and (shape := shape_of(cls)) is not None:
        for part in shape.take_apart(value):
            if type(part) is dict:
                yield from ((f".{name}", item) for name, item in part.items())
