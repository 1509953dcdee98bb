"""A memo as one file, to be carried elsewhere: the data file of an LMDB memo with the same entries.

So it is checked as a memo is: of a file with damaged entries the others are imported, and one that
was cut off is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from helium_agents.errors import MemoError
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.lmdb.environment import probe
from helium_agents.memo.lmdb.tables import DATA_FILE
from helium_agents.memo.store import BrowsableStore, Entry, Store


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Args:
        num_imported: Entries put into the store.
        num_kept: Entries that the store had already, not older, and kept.
        num_damaged: Entries skipped as damaged.
        problems: What was wrong with the file; empty for a sound one.
    """

    num_imported: int
    num_kept: int
    num_damaged: int
    problems: list[str]


def export_entries(
    store: BrowsableStore, path: str | os.PathLike[str], *, label: str | None = None
) -> int:
    """Write live entries with their provenance and creation times to a file, the oldest first.

    The file has mode 0600, since prompts are in it in clear. It is written beside its place and put
    there when it is whole and on disk, replacing what was there.

    Args:
        store: What to export.
        path: The file.
        label: Only entries with this label.

    Returns:
        The number of entries.

    Raises:
        MemoError: If the store cannot be read or the file not be written.
    """
    target, num_entries = Path(path), 0
    entries = store.entries()
    bound = 1 + 2 * sum(entry.num_bytes for entry in entries)  # nothing is evicted
    try:
        with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            with closing(LmdbStore(folder, max_bytes=bound)) as copy:
                copy.open()
                for each in reversed(entries):
                    if label in (None, each.label) and (entry := store.find(each.key)):
                        _put(copy, entry)
                        num_entries += 1
            os.replace(Path(folder, DATA_FILE), target)
    except OSError as error:
        raise MemoError(f"cannot write {target} ({error.strerror}): choose another path") from error
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
    with _opened(Path(path)) as source:
        problems = source.verify().problems
        for each in reversed(source.entries()):
            entry = source.find(each.key)
            if entry is None:
                num_damaged += 1
            elif (found := store.find(entry.key)) and found.created_s >= entry.created_s:
                num_kept += 1
            else:
                _put(store, entry)
                num_imported += 1
    store.commit().result()
    return ImportReport(num_imported, num_kept, num_damaged, problems)


@contextmanager
def _opened(path: Path) -> Iterator[LmdbStore]:
    """An exported file as a memo that is only read."""
    with TemporaryDirectory() as folder:
        Path(folder, DATA_FILE).symlink_to(path.resolve())
        problem = probe(Path(folder)) if path.is_file() else "there is no such file"
        if problem:
            raise MemoError(f"{path} is not an exported memo, or is damaged ({problem})")
        with closing(LmdbStore(folder, read_only=True)) as store:
            try:
                store.open()
            except MemoError as error:
                reason = str(error).replace(folder, os.fspath(path))
                raise MemoError(f"{path} is not an exported memo: {reason}") from error
            yield store


def _put(store: Store, entry: Entry) -> None:
    key, label, created_s, value, provenance = entry
    store.put(key, value, label=label, provenance=provenance, created_s=created_s)
