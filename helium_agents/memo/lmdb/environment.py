"""Opening LMDB's environment in a directory: how large, with which locks, and errors in words.

LMDB maps its file into memory, so some kinds of damage do not raise but kill: reading beyond the
end of a file that was cut off is a SIGBUS, and so is a lock file for which the disk has no room.
Here the second is prevented, by allocating the lock file first, and the first is met in a child
process, `probe`, which is asked where the file looks too short, and by every full check.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import lmdb

from helium_agents.errors import MemoError
from helium_agents.memo.lmdb.tables import DATA_FILE, open_tables

UNFINISHED: Final = ".new-"
"""How the names of directories begin in which a new file is made."""

MAX_READERS: Final = 1024
_LOCK_FILE: Final = "lock.mdb"
_LOCK_BYTES: Final = 64 * (MAX_READERS + 64)

_GIB: Final = 2**30
_FOUNDING_MAP_BYTES: Final = 2**24
_LOCKS_S: Final = 0.5
_MIN_MAP_BYTES: Final = 1024 * _GIB

_FULL_DISK: Final = "its disk is full or failing: free some space, then open the store again"
_DAMAGED: Final = "it is damaged: delete the directory to start afresh"
_NO_ACCESS: Final = (
    "this user may not use its files: check their permissions, or, if it is only to be read, open "
    "it with read_only=True"
)
_GROWN: Final = "a process with a larger max_bytes grew it: open it again, with the same max_bytes"
_ADVICE: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    (
        lmdb.MapFullError,
        "the file has no room left in its address range: prune() it, or open it with a larger "
        "max_bytes",
    ),
    (lmdb.DiskError, _FULL_DISK),
    (lmdb.MapResizedError, _GROWN),
    (lmdb.ReadersFullError, f"more than {MAX_READERS} reads at once: use fewer processes"),
    (lmdb.InvalidError, "it is not a memo or is damaged: delete the directory to start afresh"),
    (lmdb.VersionMismatchError, "another release of LMDB wrote it: choose another directory"),
    ((lmdb.CorruptedError, lmdb.PageNotFoundError), _DAMAGED),
    ((lmdb.ReadonlyError, PermissionError), _NO_ACCESS),
    ((FileExistsError, NotADirectoryError), "it is a file: choose a directory"),
)
_OPEN_TWICE: Final = "already open in this process"


def open_environment(path: Path, *, max_bytes: int, read_only: bool) -> lmdb.Environment:
    """Open the directory, which is made if it is to be written and missing.

    Raises:
        MemoError: If what is there would kill or mislead its readers.
        lmdb.Error, OSError: For everything else; see `explain`.
    """
    has_data = (path / DATA_FILE).is_file()
    if read_only and not has_data:
        raise MemoError(f"there is no memo in {path}: check the path (read_only=False makes one)")
    if not has_data:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _found(path)
    _reserve_locks(path)
    size = map_bytes(path, max_bytes)
    try:
        env = _open(path, max(size, _MIN_MAP_BYTES), read_only=read_only)
    except (lmdb.InvalidError, lmdb.MemoryError):
        # Another process is setting up the lock file, or was killed at it and is about to go; or
        # somebody limited the address space.
        time.sleep(_LOCKS_S)
        env = _open(path, size, read_only=read_only)
    try:
        env.reader_check()
        # A file that ends before its last page was cut, or the last pages were never written.
        num_bytes = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        if (path / DATA_FILE).stat().st_size < num_bytes and (problem := probe(path)):
            raise MemoError(f"the memo in {path} cannot be read ({problem}): {_DAMAGED}")
    except BaseException:
        env.close()
        raise
    return env


def _found(path: Path) -> None:
    """Make a new file elsewhere and move it in whole: LMDB's own way can be killed half-way.

    Of several processes that do so at once the first one's file stays. What a killed one leaves
    is a directory that begins with `UNFINISHED`.
    """
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=path) as name:
        folder = Path(name)
        _reserve_locks(folder)
        env = _open(folder, _FOUNDING_MAP_BYTES, read_only=False)
        try:
            open_tables(env, folder, read_only=False)
        finally:
            env.close()
        with suppress(FileExistsError):
            os.link(folder / DATA_FILE, path / DATA_FILE)


def map_bytes(path: Path, max_bytes: int) -> int:
    """The least size of the address range for the file, which is sparse and never resized.

    Sixteen times the bound, since address space is free and running out of it is not: files were
    seen to grow to 1.5 times the bound with entries of 100 kB, to 6 times with 10 bytes. And room
    above what a file already has, without which not even an eviction could be written. Where the
    system lets it, the range is 1 TiB, for other processes may have a larger bound.
    """
    data = path / DATA_FILE
    used_bytes = data.stat().st_size if data.exists() else 0
    size = max(16 * max_bytes + _GIB, used_bytes + _GIB, 16 * _GIB)
    return -(-size // 2**16) * 2**16


def explain(path: Path, error: BaseException) -> MemoError:
    """The error in words: what happened, where, and what to do."""
    if isinstance(error, MemoError):
        return error
    if _OPEN_TWICE in str(error):
        advice = (
            "use one store for all of it, since LMDB allows no second one (after a fork amid a "
            "long read or write: start processes with 'spawn')"
        )
    elif getattr(error, "code", getattr(error, "errno", None)) in (errno.EIO, errno.ENOSPC):
        advice = _FULL_DISK  # EIO is what LMDB says of a write that the disk cut short
    else:
        found = (advice for kind, advice in _ADVICE if isinstance(error, kind))
        advice = next(found, "check that the directory is writable and its disk has room")
    return MemoError(f"the memo in {path} failed ({error}): {advice}")


def probe(path: Path) -> str | None:
    """Read every page of the file, if any, in a child process; what went wrong, or `None`.

    Damage that makes LMDB crash then crashes the child. Takes 0.1 s and the time to read the file.

    Raises:
        MemoError: If it cannot be read safely.
    """
    try:
        if not (path / DATA_FILE).is_file():
            return None
        _reserve_locks(path)
    except OSError as error:
        raise explain(path, error) from error
    if not sys.executable:  # an interpreter inside another program, which cannot be started again
        return None
    command = [sys.executable, "-c", _PROBE, os.fspath(path)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode < 0:
        return f"reading it crashes with {signal.Signals(-done.returncode).name}"
    return done.stdout.strip() or None


_PROBE: Final = """
import lmdb, sys, zlib
try:
    with lmdb.open(sys.argv[1], max_dbs=8, readonly=True) as env:
        with env.begin() as txn:
            names = list(txn.cursor().iternext(values=False))
        tables = [env.open_db(name, create=False) for name in names]
        with env.begin(buffers=True) as txn:
            for table in tables:
                for key, value in txn.cursor(db=table):
                    zlib.crc32(value, zlib.crc32(key))
except lmdb.Error as error:
    print(error)
"""


def _open(path: Path, size: int, *, read_only: bool) -> lmdb.Environment:
    # No spare transactions: one would hold a reader slot between reads, which a forked child
    # that drops this object would free.
    return lmdb.open(
        os.fspath(path),
        map_size=size,
        max_dbs=8,
        max_readers=MAX_READERS,
        max_spare_txns=0,
        mode=0o600,
        readonly=read_only,
        create=not read_only,
        writemap=False,
    )


def _reserve_locks(path: Path) -> None:
    """Make a new lock file with all its disk space, so that a full disk is an error, not a SIGBUS.

    One that is there already stays untouched: to close a file that LMDB has open in this process
    would give up its lock.
    """
    locks = path / _LOCK_FILE
    if locks.exists() and locks.stat().st_size:
        return
    try:
        file = os.open(locks, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.EROFS:  # then LMDB reads without locks
            return
        raise
    try:
        os.posix_fallocate(file, 0, _LOCK_BYTES)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            locks.unlink()
            raise
    finally:
        os.close(file)
