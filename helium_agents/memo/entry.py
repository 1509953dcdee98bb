"""One entry as bytes: a header that says when, whose and whether whole, then the payload.

The header is ``version, checksum, created_s, label length, label``. The checksum (xxh3, 64 bit)
covers all that follows it, so that a changed creation time is noticed as well as a changed payload.
It guards against bad disks and bugs, not against people.
"""

from __future__ import annotations

import struct
from math import isfinite
from typing import Final, NamedTuple

import xxhash

from helium_agents.errors import MemoError
from helium_agents.graph.arguments import complaint, is_finite, is_whole
from helium_agents.memo.provenance import provenance_bytes
from helium_agents.memo.store import KEY_BYTES

ENTRY_VERSION: Final = 1

_HEADER: Final = struct.Struct("<BQdH")
_CHECKED_HEADER: Final = struct.Struct("<dH")
_CHECKED_FROM: Final = _HEADER.size - _CHECKED_HEADER.size
_MAX_LABEL_BYTES: Final = 0xFFFF
_MAX_BYTES: Final = 2**63 - 1


class Entry(NamedTuple):
    """What a record says.

    Args:
        created_s: Unix time at which the value was put.
        label: The label it was put with.
        payload: The value itself.
    """

    created_s: float
    label: str
    payload: bytes

    def is_expired(self, ttl_s: float | None, now_s: float) -> bool:
        """Whether the entry is too old to be used; see `is_expired`."""
        return is_expired(self.created_s, ttl_s, now_s)


def is_expired(created_s: float, ttl_s: float | None, now_s: float) -> bool:
    """Whether something of that age is too old.

    The distance counts, not its sign: a clock that was set back leaves entries from the future,
    which must neither live for ever nor all vanish at a step of a second. So whatever the clock
    does, an entry lives at most twice `ttl_s`.
    """
    return ttl_s is not None and abs(now_s - created_s) > ttl_s


def encode(value: bytes, *, label: str, created_s: float) -> bytes:
    """The record for a value: header and payload."""
    name = label.encode()
    checked = b"".join((_CHECKED_HEADER.pack(created_s, len(name)), name, value))
    header = _HEADER.pack(ENTRY_VERSION, xxhash.xxh3_64_intdigest(checked), created_s, len(name))
    return header[:_CHECKED_FROM] + checked


def decode(record: bytes | memoryview) -> Entry | None:
    """The entry in a record, or `None` if the record is damaged or not of this version.

    Args:
        record: Bytes, or a view of memory that is valid during the call only.
    """
    if len(record) < _HEADER.size:
        return None
    version, checksum, created_s, label_bytes = _HEADER.unpack_from(record)
    if version != ENTRY_VERSION:
        return None
    view = memoryview(record)
    if xxhash.xxh3_64_intdigest(view[_CHECKED_FROM:]) != checksum:
        return None
    payload_from = _HEADER.size + label_bytes
    label = str(view[_HEADER.size : payload_from], "utf-8")
    return Entry(created_s, label, bytes(view[payload_from:]))


def origin(record: bytes) -> tuple[float, bytes]:
    """Creation time and encoded label of a record that is known to be whole."""
    _, _, created_s, label_bytes = _HEADER.unpack_from(record)
    return created_s, record[_HEADER.size : _HEADER.size + label_bytes]


def stored_bytes(value: bytes, label: str) -> int:
    """What an entry without provenance counts against the byte bound: key, header and value."""
    return KEY_BYTES + _HEADER.size + len(label.encode()) + len(value)


def what_fits(value: bytes, label: str, provenance: bytes, max_bytes: int) -> tuple[bool, bytes]:
    """Whether an entry can be kept at all, and the provenance that can be kept with it."""
    num_bytes = stored_bytes(value, label)
    fits = num_bytes <= max_bytes
    if provenance and num_bytes + provenance_bytes(provenance) > max_bytes:
        provenance = b""
    return fits, provenance


def check_key(key: bytes) -> None:
    """Raise `MemoError` unless the key is a digest."""
    if len(key) != KEY_BYTES:
        raise MemoError(f"a memo key has {KEY_BYTES} bytes, this one {len(key)}: pass a digest")


def check_time(created_s: float) -> None:
    """Raise `MemoError` unless it is a time: what is not a number would never expire."""
    if not isfinite(created_s):
        raise MemoError(f"created_s={created_s}: give a Unix time in seconds")


def check_label(label: str) -> None:
    """Raise `MemoError` unless the label fits the header."""
    if len(label) > _MAX_LABEL_BYTES // 4 and len(label.encode()) > _MAX_LABEL_BYTES:
        raise MemoError(
            f"a memo label has at most {_MAX_LABEL_BYTES} bytes: {label[:40]!r}... is longer"
        )


def check_bounds(max_bytes: int, ttl_s: float | None) -> None:
    """Raise `MemoError` unless the byte bound and the time to live make sense."""
    if not is_whole(max_bytes, 1, _MAX_BYTES):
        raise MemoError(complaint("max_bytes", max_bytes, "a whole number of bytes, at least 1"))
    if ttl_s is not None and not (is_finite(ttl_s) and ttl_s >= 0):
        want = "a finite number of seconds, at least 0, or None to keep entries for ever"
        raise MemoError(complaint("ttl_s", ttl_s, want))
