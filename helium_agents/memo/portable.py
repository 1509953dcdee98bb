r"""A memo as one file, to be carried elsewhere: every entry whole, each with a checksum of its own.

======== ===================================================================================
part     bytes
======== ===================================================================================
header   ``helium memo\n``, version
entry    ``E``, key, creation time, sizes of label, provenance and value, their checksum;
         checksum of the three and this head; label, provenance, value
trailer  ``Z``, number of entries, checksum of all before
======== ===================================================================================

A damaged entry is skipped and named; a damaged head, or a file that was cut off, ends the import
there, and what came before is kept, since each entry vouches for itself. The trailer tells a file
that is all there from one that is not. Checksums are xxh3 with 64 bits.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from io import BufferedReader
from math import isfinite
from pathlib import Path
from typing import BinaryIO, Final

import xxhash

from helium_agents.errors import MemoError
from helium_agents.memo.store import FullEntry, ManagedStore

EXPORT_VERSION: Final = 1

_MAGIC: Final = b"helium memo\n"
_VERSION: Final = struct.Struct("<H")
_HEAD: Final = struct.Struct("<c32sdHIQ")
_CHECKSUM: Final = struct.Struct("<Q")
_TRAILER: Final = struct.Struct("<cQQ")
_ENTRY: Final = b"E"
_END: Final = b"Z"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Args:
        num_imported: Entries put into the store.
        num_kept: Entries that the store had already, not older, and kept.
        num_damaged: Entries skipped as damaged.
        problems: What was wrong with the file and at which byte; empty for a sound one.
    """

    num_imported: int
    num_kept: int
    num_damaged: int
    problems: list[str] = field(default_factory=list)


class _Damaged(Exception):
    """What is wrong from here on, so that nothing more can be read."""


def export_entries(
    store: ManagedStore, path: str | os.PathLike[str], *, label: str | None = None
) -> int:
    """Write live entries with their provenance and creation times to a file.

    The file has mode 0600, since prompts are in it in clear. It is written beside its place, as
    ``PATH.part``, and put there when it is whole and on disk, replacing what was there.

    Args:
        store: What to export.
        path: The file.
        label: Only entries with this label.

    Returns:
        The number of entries.

    Raises:
        MemoError: If the store cannot be read or the file not be written.
    """
    target = Path(path)
    part = target.with_name(target.name + ".part")
    try:
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            num_entries = _write_all(store, file, label)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise MemoError(f"cannot write {target} ({error.strerror}): choose another path") from error
    finally:
        part.unlink(missing_ok=True)
    return num_entries


def import_entries(store: ManagedStore, path: str | os.PathLike[str]) -> ImportReport:
    """Put the entries of an exported file into a store, durably.

    Entries that the store has already are kept, unless the file's are newer. Creation times stay;
    the order of use does not, as all of them count as used now.

    Args:
        store: Where they go.
        path: The file.

    Raises:
        MemoError: If it is no such file or of a newer version, or the store takes nothing.
    """
    try:
        with open(path, "rb") as file:
            report = _read_all(store, _Reader(file, Path(path)))
    except OSError as error:
        raise MemoError(f"cannot read {path} ({error.strerror}): check the path") from error
    store.commit().result()
    return report


def _write_all(store: ManagedStore, file: BinaryIO, label: str | None) -> int:
    digest = xxhash.xxh3_64()
    num_entries = 0

    def write(part: bytes) -> None:
        digest.update(part)
        file.write(part)

    write(_MAGIC + _VERSION.pack(EXPORT_VERSION))
    for entry in store.scan(label=label):
        name = entry.label.encode()
        sizes = (len(name), len(entry.provenance), len(entry.value))
        head = _HEAD.pack(_ENTRY, entry.key, entry.created_s, *sizes)
        head += _CHECKSUM.pack(xxhash.xxh3_64_intdigest(head))
        body = b"".join((name, entry.provenance, entry.value))
        write(head + _CHECKSUM.pack(_body_checksum(head, body)))
        write(body)
        num_entries += 1
    file.write(_TRAILER.pack(_END, num_entries, digest.intdigest()))
    return num_entries


class _Reader:
    """The file's parts in turn, and where each began."""

    def __init__(self, file: BufferedReader, path: Path) -> None:
        self._file = file
        self._left_bytes = os.fstat(file.fileno()).st_size
        self._digest = xxhash.xxh3_64()
        self.path = path
        self.at = 0
        self._read_version()

    def take(self, num_bytes: int) -> bytes:
        """The next bytes, all of them."""
        if num_bytes > self._left_bytes:
            raise _Damaged("the file ends in the middle")
        part = self._file.read(num_bytes)
        self._left_bytes -= num_bytes
        self.at += num_bytes
        self._digest.update(part)
        return part

    def is_at_trailer(self) -> bool:
        """Whether there are no more entries."""
        next_byte: bytes = self._file.peek(1)[:1]
        return next_byte == _END and self._left_bytes >= _TRAILER.size

    def take_entry(self) -> FullEntry | str:
        """The next entry, or what is wrong with it."""
        start = self.at
        head = self.take(_HEAD.size)
        sealed = self.take(_CHECKSUM.size)
        if sealed != _CHECKSUM.pack(xxhash.xxh3_64_intdigest(head)) or head[:1] != _ENTRY:
            raise _Damaged("an entry's head is damaged, so what follows cannot be found")
        _, key, created_s, *sizes = _HEAD.unpack(head)
        checksum = self.take(_CHECKSUM.size)
        body = self.take(sum(sizes))
        where = f"byte {start:,}, entry {key.hex()[:16]}"
        if checksum != _CHECKSUM.pack(_body_checksum(head + sealed, body)):
            return f"{where}: it is damaged"
        provenance_from, value_from = sizes[0], sizes[0] + sizes[1]
        try:
            label = body[:provenance_from].decode()
        except UnicodeDecodeError:
            return f"{where}: its label is no text"
        if not isfinite(created_s):
            return f"{where}: its creation time is no time"
        return FullEntry(key, label, created_s, body[value_from:], body[provenance_from:value_from])

    def _read_version(self) -> None:
        start = self._file.read(len(_MAGIC) + _VERSION.size)
        self._file.seek(0)
        if len(start) < len(_MAGIC) + _VERSION.size or not start.startswith(_MAGIC):
            raise MemoError(f"{self.path} is not an exported memo: check the path")
        (version,) = _VERSION.unpack(start[len(_MAGIC) :])
        if version != EXPORT_VERSION:
            raise MemoError(
                f"{self.path} has version {version} of the export format, not {EXPORT_VERSION}: "
                "it was written by another helium_agents, upgrade the package"
            )
        self.take(len(start))

    def check_trailer(self, num_entries: int) -> list[str]:
        """Read the trailer, after so many entries; what is wrong with it or the whole."""
        start, expected = self.at, self._digest.intdigest()
        _, num_written, checksum = _TRAILER.unpack(self.take(_TRAILER.size))
        problems = []
        if checksum != expected:
            problems.append("the checksum of the whole file is wrong")
        if num_written != num_entries:
            problems.append(f"{num_written:,} entries were written, {num_entries:,} are there")
        if self._left_bytes:
            problems.append(f"{self._left_bytes:,} bytes follow the end")
        return [f"byte {start:,}: {problem}" for problem in problems]


def _read_all(store: ManagedStore, reader: _Reader) -> ImportReport:
    num_imported = num_kept = num_damaged = 0
    problems: list[str] = []
    try:
        while not reader.is_at_trailer():
            entry = reader.take_entry()
            if isinstance(entry, str):
                num_damaged += 1
                problems.append(entry)
            elif _is_wanted(store, entry):
                store.put(
                    entry.key,
                    entry.value,
                    label=entry.label,
                    provenance=entry.provenance,
                    created_s=entry.created_s,
                )
                num_imported += 1
            else:
                num_kept += 1
        problems += reader.check_trailer(num_imported + num_kept + num_damaged)
    except _Damaged as error:
        problems.append(f"byte {reader.at:,}: {error}")
    return ImportReport(num_imported, num_kept, num_damaged, problems)


def _is_wanted(store: ManagedStore, entry: FullEntry) -> bool:
    """Whether the store has nothing under that key, or something older."""
    found = store.describe(entry.key)
    return found is None or found.created_s < entry.created_s


def _body_checksum(head: bytes, body: bytes) -> int:
    """A checksum of a body that also tells whose it is."""
    return xxhash.xxh3_64_intdigest(body, seed=xxhash.xxh3_64_intdigest(head))
