"""One opened directory: the environment, its tables and the writer, from opening to release.

It knows no store, so that a store which was dropped and not closed can be collected: what it put is
then written, and the environment released, by what is kept here. The same happens at the end of the
program, which waits a few seconds for it and not longer, since another process may hold the lock.

A child that is forked may not use what it inherits, but it may open the directory for itself. LMDB
allows that only once the inherited environment is closed, and closing one amid a transaction frees
the parent's slot in the table of readers. So a fork waits until nothing is read or written here,
and the child first closes what it inherits; where it waits in vain, it cannot open that directory.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb

from helium_agents.errors import MemoError
from helium_agents.memo.eviction import EvictionPolicy
from helium_agents.memo.lmdb.environment import explain, open_environment
from helium_agents.memo.lmdb.tables import DATA_FILE, Tables, Txn, Update, open_tables
from helium_agents.memo.lmdb.writer import Group, Writer

_T = TypeVar("_T")

_MAX_TOUCHED: Final = 2**16
_READER_CHECK_S: Final = 30.0
_WAIT_AT_DROP_S: Final = 1.0
_WAIT_AT_EXIT_S: Final = 5.0
_WAIT_AT_FORK_S: Final = 0.5
_POLL_S: Final = 0.0005


class Directory:
    """An opened memo directory, of one process.

    Args:
        path: Where it is.
        max_bytes: The bound that each write holds.
        policy: Says what goes first where the bound would be exceeded.
        read_only: Have no writer.

    Attributes:
        touched: Keys that were read, to note their use; the oldest are forgotten.
        write_lock: Held by a write that is under way, or by a fork.
        reading: One element for each read transaction that is open: a count that needs no lock.

    Raises:
        MemoError: If it cannot be opened.
    """

    def __init__(
        self, path: Path, max_bytes: int, policy: EvictionPolicy, *, read_only: bool
    ) -> None:
        self.pid = os.getpid()
        self.path = path
        self.explain = partial(explain, path)
        self.writer: Writer | None = None
        self.touched: deque[bytes] = deque(maxlen=_MAX_TOUCHED)
        self.reading: list[None] = []
        self.write_lock = threading.RLock()
        self._max_bytes = max_bytes
        self._policy = policy
        self._next_reader_check_s = time.monotonic() + _READER_CHECK_S
        try:
            self.env = open_environment(path, max_bytes=max_bytes, read_only=read_only)
            try:
                self.tables: Tables = open_tables(self.env, path, read_only=read_only)
            except BaseException:
                self.env.close()
                raise
            self._data = Path(os.path.abspath(path / DATA_FILE))  # also after a chdir
            self._found = self._data.stat()
        except (lmdb.Error, OSError) as error:
            raise self.explain(error) from error
        if not read_only:
            self.writer = Writer(f"memo writer {path}", self._write, self.explain, self.env.close)
        _open_directories.add(self)

    def read(self, query: Callable[[Txn, Tables], _T]) -> _T:
        """The result of a query on one state of the tables."""
        self.reading.append(None)
        try:
            try:
                reading = self.env.begin()
            except lmdb.ReadersFullError:  # perhaps of the dead
                self.env.reader_check()
                reading = self.env.begin()
            with reading as txn:
                return query(txn, self.tables)
        except lmdb.Error as error:
            raise self.explain(error) from error
        finally:
            self.reading.pop()

    def close(self, wait_s: float | None = None) -> None:
        """Write what is pending and release everything.

        Args:
            wait_s: How long to wait for that; `None` for as long as it takes.

        Raises:
            MemoError: If something could not be written and nobody was told yet.
        """
        _open_directories.discard(self)
        if self.writer is None:
            self.env.close()
            return
        if self.touched:
            self.writer.flush()
        self.writer.close(wait_s)

    def abandon(self, wait_s: float = _WAIT_AT_DROP_S) -> None:
        """As `close`, for a store that nobody closed: waits a bounded time and does not raise."""
        if self.pid == os.getpid():
            try:
                self.close(wait_s)
            except MemoError as failure:
                warnings.warn(f"a memo that was not closed lost puts: {failure}", stacklevel=1)

    def _write(self, group: Group) -> list[Any]:
        """Write a group and what was used in one transaction; runs on the writer thread."""
        with self.write_lock:
            now_s = time.monotonic()
            if now_s >= self._next_reader_check_s:  # else the pages of the killed stay in use
                self._next_reader_check_s = now_s + _READER_CHECK_S
                self.env.reader_check()
            touched = dict.fromkeys(self.touched.popleft() for _ in range(len(self.touched)))
            with self.env.begin(write=True) as txn:
                update = Update(txn, self.tables)
                update.touch(touched)
                update.put(group.records)
                results = [job(update) for job, _ in group.jobs]
                update.evict(self._max_bytes, self._policy)
                update.save(self._max_bytes)
            self._check_place()
            return results

    def _check_place(self) -> None:
        """Raise if what was written cannot be found again: LMDB would go on in a deleted file."""
        if not self._data.exists() or not os.path.samestat(self._data.stat(), self._found):
            raise MemoError(
                f"the memo in {self.path} was deleted, moved or replaced while it was open: "
                "open it again"
            )

    # --- forks -------------------------------------------------------------------------------

    def pause(self, until_s: float) -> bool:
        """Take the lock of writes and wait for reads to end; whether both came until that time."""
        if not self.write_lock.acquire(timeout=max(0.0, until_s - time.monotonic())):
            return False
        while self.reading and time.monotonic() < until_s:
            time.sleep(_POLL_S)
        if self.reading:
            self.write_lock.release()
            return False
        return True


_open_directories: weakref.WeakSet[Directory] = weakref.WeakSet()
_forking = threading.Lock()
_paused: list[Directory] = []


@atexit.register
def _abandon_all() -> None:
    for directory in list(_open_directories):
        directory.abandon(_WAIT_AT_EXIT_S)


def _before_fork() -> None:
    _forking.acquire()
    until_s = time.monotonic() + _WAIT_AT_FORK_S
    _paused.extend(directory for directory in list(_open_directories) if directory.pause(until_s))


def _after_in_parent() -> None:
    for directory in _paused:
        directory.write_lock.release()
    _paused.clear()
    _forking.release()


def _after_in_child() -> None:
    for directory in _paused:
        if not directory.reading:  # which another thread may have begun at the last
            directory.env.close()
    _open_directories.clear()
    _paused.clear()
    _forking.release()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
