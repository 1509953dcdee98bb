"""One store for each directory that a process uses by its name, since LMDB allows no second one.

Sessions that are open at once (a planned graph's concurrent runs, two chat models) name the same
directory; the first opens it, and the last that closes it closes it.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from weakref import WeakValueDictionary

from helium_agents.memo.lmdb import LmdbStore

_lock = threading.Lock()
_stores: WeakValueDictionary[tuple[Path, bool, int], SharedStore] = WeakValueDictionary()


class SharedStore(LmdbStore):
    """A directory's store with a count of those who use it; made by `shared_store`."""

    num_users = 0

    def close(self) -> None:
        """Say that one of those who use it does so no more; the last one closes it."""
        with _lock:
            self.num_users -= 1
            if self.num_users > 0:
                return
            for key in [key for key, store in _stores.items() if store is self]:
                del _stores[key]
            super().close()


def shared_store(path: str | os.PathLike[str], *, read_only: bool = False) -> SharedStore:
    """The store of a directory, open; to be closed once for each call.

    A store that was open in the process before a fork is not given out again.

    Raises:
        MemoError: It cannot be opened.
    """
    key = (Path(path).resolve(), read_only, os.getpid())
    with _lock:
        store = _stores.get(key)
        if store is None:
            store = SharedStore(path, read_only=read_only)
            store.open()  # so that a wrong path is said now, not at the first call
            _stores[key] = store
        store.num_users += 1
        return store


def _forget_lock() -> None:
    """In a forked process: another thread may have held it, which does not exist there."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)
