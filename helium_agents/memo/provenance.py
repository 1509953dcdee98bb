"""What is known of an entry's origin, as bytes beside it, for people only.

A provenance record is ``form, checksum, payload``. It has a table of its own, so that a look-up of
the value never reads it.
"""

from __future__ import annotations

import struct
from typing import Final

import xxhash

_HEADER: Final = struct.Struct("<BQ")
_PLAIN: Final = 0
# Written by earlier releases: longer, compressed, and no longer understood.
_COMPRESSED: Final = 1


def encode_provenance(provenance: bytes) -> bytes:
    """The record for any bytes."""
    return _HEADER.pack(_PLAIN, _checksum(_PLAIN, provenance)) + provenance


def decode_provenance(record: bytes | memoryview) -> bytes | None:
    """The bytes in a record, none of an earlier release's; `None` if the record is damaged."""
    if len(record) < _HEADER.size:
        return None
    form, checksum = _HEADER.unpack_from(record)
    payload = bytes(record[_HEADER.size :])
    if form not in (_PLAIN, _COMPRESSED) or checksum != _checksum(form, payload):
        return None
    return payload if form == _PLAIN else b""


def provenance_bytes(provenance: bytes) -> int:
    """What provenance counts against the byte bound; none counts nothing."""
    return _HEADER.size + len(provenance) if provenance else 0


def _checksum(form: int, payload: bytes) -> int:
    return xxhash.xxh3_64_intdigest(payload, seed=form)
