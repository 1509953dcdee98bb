r"""A memo as one file, to be carried elsewhere: every entry whole, in the records of `entry`.

======== ===============================================================================
part     bytes
======== ===============================================================================
header   ``helium memo\n``, version
entry    a head of key, sizes of the two records, and its checksum; the two records
end      a head whose key is the number of entries and whose sizes are 0
======== ===============================================================================

A damaged entry is skipped and named; a damaged head, or a file that was cut off, ends the import
there, and what came before is kept, since each entry vouches for itself.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import xxhash

from helium_agents.errors import MemoError
from helium_agents.memo.entry import decode, decode_provenance, encode, encode_provenance
from helium_agents.memo.store import KEY_BYTES, BrowsableStore, Entry

EXPORT_VERSION: Final = 2

_MAGIC: Final = b"helium memo\n"
_VERSION: Final = struct.Struct("<H")
_HEAD: Final = struct.Struct("<32sQQQ")
_CHECKSUM_BYTES: Final = 8


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
    problems: list[str]


def export_entries(
    store: BrowsableStore, path: str | os.PathLike[str], *, label: str | None = None
) -> int:
    """Write live entries with their provenance and creation times to a file, the oldest first.

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
    num_entries = 0
    try:
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(_MAGIC + _VERSION.pack(EXPORT_VERSION))
            for each in reversed(store.entries()):
                if label in (None, each.label) and (entry := store.find(each.key)):
                    record = encode(entry.value, label=entry.label, created_s=entry.created_s)
                    provenance = encode_provenance(entry.provenance)
                    file.write(_head(entry.key, len(record), len(provenance)))
                    file.write(record)
                    file.write(provenance)
                    num_entries += 1
            file.write(_head(num_entries.to_bytes(KEY_BYTES, "big"), 0, 0))
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise MemoError(f"cannot write {target} ({error.strerror}): choose another path") from error
    finally:
        part.unlink(missing_ok=True)
    return num_entries


def import_entries(store: BrowsableStore, path: str | os.PathLike[str]) -> ImportReport:
    """Put the entries of an exported file into a store, durably.

    Entries that the store has already are kept, unless the file's are newer. Creation times stay;
    the order of use does not, as all of them count as used now.

    Args:
        store: Where they go.
        path: The file.

    Raises:
        MemoError: If it is no such file or of another version, or the store takes nothing.
    """
    num_imported = num_kept = num_damaged = 0
    problems: list[str] = []
    try:
        with open(path, "rb") as file:
            _check_version(file, path)
            for entry in _read_entries(file, problems):
                if entry is None:
                    num_damaged += 1
                elif (found := store.find(entry.key)) and found.created_s >= entry.created_s:
                    num_kept += 1
                else:
                    key, label, created_s, value, provenance = entry
                    store.put(key, value, label=label, provenance=provenance, created_s=created_s)
                    num_imported += 1
    except OSError as error:
        raise MemoError(f"cannot read {path} ({error.strerror}): check the path") from error
    store.commit().result()
    return ImportReport(num_imported, num_kept, num_damaged, problems)


def _head(key: bytes, record_bytes: int, provenance_bytes: int) -> bytes:
    head = _HEAD.pack(key, record_bytes, provenance_bytes, 0)[:-_CHECKSUM_BYTES]
    return head + xxhash.xxh3_64_intdigest(head).to_bytes(_CHECKSUM_BYTES, "little")


def _check_version(file: BinaryIO, path: str | os.PathLike[str]) -> None:
    start = file.read(len(_MAGIC) + _VERSION.size)
    if len(start) < len(_MAGIC) + _VERSION.size or not start.startswith(_MAGIC):
        raise MemoError(f"{path} is not an exported memo: check the path")
    (version,) = _VERSION.unpack(start[len(_MAGIC) :])
    if version != EXPORT_VERSION:
        raise MemoError(
            f"{path} has version {version} of the export format, not {EXPORT_VERSION}: it was "
            "written by another helium_agents, use that one or export again"
        )


def _read_entries(file: BinaryIO, problems: list[str]) -> Iterator[Entry | None]:
    """The entries, `None` for a damaged one; adds what is wrong, and at which byte."""
    num_entries = 0
    while True:
        where = f"byte {file.tell():,}"
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            problems.append(f"{where}: the file ends in the middle")
            return
        key, record_bytes, provenance_bytes, _ = _HEAD.unpack(head)
        if head != _head(key, record_bytes, provenance_bytes):
            problems.append(f"{where}: a head is damaged, so what follows cannot be found")
            return
        if not record_bytes:
            break
        record, provenance = file.read(record_bytes), file.read(provenance_bytes)
        if len(record) + len(provenance) < record_bytes + provenance_bytes:
            problems.append(f"{where}: the file ends in the middle")
            return
        entry = decode(key, record, provenance)
        if decode_provenance(provenance) is None or entry is None:
            problems.append(f"{where}, entry {key.hex()[:16]}: it is damaged")
            entry = None
        yield entry
        num_entries += 1
    if (num_written := int.from_bytes(key, "big")) != num_entries:
        problems.append(f"{where}: {num_written:,} entries were written, {num_entries:,} are there")
    if num_more := len(file.read()):
        problems.append(f"{where}: {num_more:,} bytes follow the end")
