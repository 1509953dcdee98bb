"""One entry as bytes, in two records: its value, and its provenance, which a look-up never reads.

A value's record is ``version, checksum, created_s, label length, label, value``, and a provenance
record ``0, checksum, provenance``. The checksum (xxh3, 64 bit) covers all that follows it, so
that a changed creation time is noticed as well as a changed value. It guards against bad disks and
bugs, not against people.
"""

from __future__ import annotations

import struct
from math import isfinite
from typing import Final

import xxhash

from helium_agents.errors import MemoError
from helium_agents.graph.arguments import complaint, is_finite, is_whole
from helium_agents.memo.store import KEY_BYTES, Entry

ENTRY_VERSION: Final = 1

_HEADER: Final = struct.Struct("<BQdH")
_CHECKED_HEADER: Final = struct.Struct("<dH")
_CHECKED_FROM: Final = _HEADER.size - _CHECKED_HEADER.size
_PROVENANCE_HEADER: Final = struct.Struct("<BQ")
_MAX_LABEL_BYTES: Final = 0xFFFF
_MAX_BYTES: Final = 2**63 - 1


def is_expired(created_s: float, ttl_s: float | None, now_s: float) -> bool:
    """Whether something of that age is too old.

    The distance counts, not its sign: a clock that was set back leaves entries from the future,
    which must neither live for ever nor all vanish at a step of a second. So whatever the clock
    does, an entry lives at most twice `ttl_s`.
    """
    return ttl_s is not None and abs(now_s - created_s) > ttl_s


def encode(value: bytes, *, label: str, created_s: float) -> bytes:
    """The record for a value."""
    name = label.encode()
    checked = b"".join((_CHECKED_HEADER.pack(created_s, len(name)), name, value))
    header = _HEADER.pack(ENTRY_VERSION, xxhash.xxh3_64_intdigest(checked), created_s, len(name))
    return header[:_CHECKED_FROM] + checked


def encode_provenance(provenance: bytes) -> bytes:
    """The record for provenance; of none there is no record."""
    if not provenance:
        return b""
    return _PROVENANCE_HEADER.pack(0, xxhash.xxh3_64_intdigest(provenance)) + provenance


def decode(key: bytes, record: bytes, provenance_record: bytes = b"") -> Entry | None:
    """The entry in its records; `None` if the value's is damaged or not of this version.

    Damaged provenance is none.
    """
    if len(record) < _HEADER.size:
        return None
    version, checksum, created_s, label_bytes = _HEADER.unpack_from(record)
    view = memoryview(record)
    if version != ENTRY_VERSION or xxhash.xxh3_64_intdigest(view[_CHECKED_FROM:]) != checksum:
        return None
    value_from = _HEADER.size + label_bytes
    label = str(view[_HEADER.size : value_from], "utf-8")
    provenance = decode_provenance(provenance_record) or b""
    return Entry(key, label, created_s, bytes(view[value_from:]), provenance)


def decode_provenance(record: bytes) -> bytes | None:
    """The provenance in a record; `None` if the record is damaged."""
    provenance = record[_PROVENANCE_HEADER.size :]
    return provenance if record == encode_provenance(provenance) else None


def origin(record: bytes) -> tuple[float, bytes]:
    """Creation time and encoded label of a record that is known to be whole."""
    _, _, created_s, label_bytes = _HEADER.unpack_from(record)
    return created_s, record[_HEADER.size : _HEADER.size + label_bytes]


def entry_bytes(value: bytes, label: str, provenance: bytes = b"") -> int:
    """What an entry counts against the byte bound: its key and its records."""
    num_bytes = KEY_BYTES + _HEADER.size + len(label.encode()) + len(value)
    return num_bytes + (_PROVENANCE_HEADER.size + len(provenance) if provenance else 0)


def check_key(key: bytes) -> None:
    """Raise `MemoError` unless the key is a digest."""
    if len(key) != KEY_BYTES:
        raise MemoError(f"a memo key has {KEY_BYTES} bytes, this one {len(key)}: pass a digest")


def check_put(key: bytes, label: str, created_s: float) -> None:
    """Raise `MemoError` for a wrong key, a label too long for the header, or a time that is none.

    What has no time would never expire.
    """
    check_key(key)
    if len(label) > _MAX_LABEL_BYTES // 4 and len(label.encode()) > _MAX_LABEL_BYTES:
        raise MemoError(
            f"a memo label has at most {_MAX_LABEL_BYTES} bytes: {label[:40]!r}... is longer"
        )
    if not isfinite(created_s):
        raise MemoError(f"created_s={created_s}: give a Unix time in seconds")


def check_bounds(max_bytes: int, ttl_s: float | None) -> None:
    """Raise `MemoError` unless the byte bound and the time to live make sense."""
    if not is_whole(max_bytes, 1, _MAX_BYTES):
        raise MemoError(complaint("max_bytes", max_bytes, "a whole number of bytes, at least 1"))
    if ttl_s is not None and not (is_finite(ttl_s) and ttl_s >= 0):
        want = "a finite number of seconds, at least 0, or None to keep entries for ever"
        raise MemoError(complaint("ttl_s", ttl_s, want))
