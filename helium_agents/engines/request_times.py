"""When an engine began its requests and had read their prompts, in a part of a file.

Its size is fixed. One process writes and others read, each request by a number; what many requests
came after is overwritten, and counts as not known.
"""

from __future__ import annotations

import os
import struct
from typing import Final, NamedTuple

_SLOT = struct.Struct("4d")  # the number at both ends: else it is half written
_NUM_SLOTS = 8192

TIMES_BYTES: Final = _NUM_SLOTS * _SLOT.size
"""What it takes of the file."""


class RequestTimes(NamedTuple):
    """Times by the event loop's clock.

    Args:
        begun_s: When the engine began to read the prompt.
        read_s: When it had read it, and had the first token of the answer.
    """

    begun_s: float
    read_s: float


def write_times(descriptor: int, offset: int, number: int, times: RequestTimes) -> None:
    """Keep the times of a request, which has a number from 1 on."""
    data = _SLOT.pack(number, *times, number)
    os.pwrite(descriptor, data, offset + number % _NUM_SLOTS * _SLOT.size)


def read_times(descriptor: int, offset: int, number: int) -> RequestTimes | None:
    """The times of a request; `None` where they are not there."""
    data = os.pread(descriptor, _SLOT.size, offset + number % _NUM_SLOTS * _SLOT.size)
    if len(data) < _SLOT.size:
        return None
    found, begun_s, read_s, again = _SLOT.unpack(data)
    return RequestTimes(begun_s, read_s) if found == again == number else None
