"""The bytes of a trace: a header, then chunks that are only ever appended.

A chunk is compressed JSON with its length and a checksum before it, and can be read without the
others. Who is killed loses the chunk that it was writing and nothing else.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from helium_agents.errors import TraceError

VERSION = 1

MAGIC = b"HELTRACE"
_HEADER = struct.Struct("<8sI")  # magic, version
_CHUNK = struct.Struct("<4sII")  # mark, bytes, CRC-32 of them
_MARK = b"CHNK"

HEADER = _HEADER.pack(MAGIC, VERSION)


def chunk_of(content: Mapping[str, Any]) -> bytes:
    """The bytes of a chunk."""
    text = json.dumps(content, separators=(",", ":"))  # as ASCII: lone surrogates stay
    data = zlib.compress(text.encode("ascii"), 6)
    return _CHUNK.pack(_MARK, len(data), zlib.crc32(data)) + data


_NAME_ONE = "name a file that `helium run --trace` or a session made"


def check_header(file: BinaryIO, path: str, advice: str = _NAME_ONE) -> None:
    """Read the header of a trace.

    Args:
        file: It, at its beginning.
        path: Its name.
        advice: What to do where it is something else.

    Raises:
        TraceError: The file is something else, or of a later version.
    """
    data = file.read(_HEADER.size)
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise TraceError(f"{path} is no trace: {advice}")
    version = _HEADER.unpack(data)[1]
    if version > VERSION:
        raise TraceError(
            f"{path} is a trace of version {version}, and this helium_agents reads versions up to "
            f"{VERSION}: read it with the one that wrote it, or a later one"
        )


def chunks_in(file: BinaryIO, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The chunks from where a file stands, each with the place where it ends.

    It ends before a chunk that is not there to its end: that is being written, or its writer was
    killed.

    Raises:
        TraceError: A chunk is damaged.
    """
    while True:
        start = file.tell()
        head = file.read(_CHUNK.size)
        if len(head) < _CHUNK.size:
            return
        mark, num_bytes, checksum = _CHUNK.unpack(head)
        if mark != _MARK:
            raise _damaged(path, start)
        data = file.read(num_bytes)
        if len(data) < num_bytes:
            return
        if zlib.crc32(data) != checksum or not data:
            raise _damaged(path, start)
        yield file.tell(), json.loads(zlib.decompress(data))


def _damaged(path: str, start: int) -> TraceError:
    return TraceError(
        f"{path} is damaged at byte {start:,}, which no run that was killed leaves behind: cut the "
        f"file there (truncate --size {start}) to read what comes before"
    )
