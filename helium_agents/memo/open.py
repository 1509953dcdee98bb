"""Opening the store that `memo=` names: one for each directory, since LMDB allows no second one.

Sessions that are open at once (a planned graph's concurrent runs, two chat models) name the same
directory; the first opens it, and the last that closes it closes it.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from weakref import WeakValueDictionary

from helium_agents.errors import MemoError
from helium_agents.graph.arguments import complaint
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.memory import MemoryStore
from helium_agents.memo.store import Store

SESSION_MAX_BYTES = 192 * 2**20
"""What a session remembers without a memo, in bytes of memory: it may run for millions of rows."""

ENTRY_OVERHEAD_BYTES = 400
"""What Python needs for a small entry besides its content."""


def open_store(memo: str | Path | Store | None, *, read_only: bool = False) -> Store:
    """The store for a `memo=` argument.

    Args:
        memo: A directory for an LMDB store, one for all who name it in this process; a store,
            which is returned as it is; or `None` for a bounded in-memory store.
        read_only: Open a directory for reading only; it must then exist.

    Raises:
        MemoError: The directory cannot be used, or `memo` is something else.
    """
    if memo is None:
        return MemoryStore(max_bytes=SESSION_MAX_BYTES, overhead_bytes=ENTRY_OVERHEAD_BYTES)
    if isinstance(memo, str | Path):
        return shared_store(memo, read_only=read_only)
    if isinstance(memo, type) or not callable(getattr(memo, "put", None)):
        want = "a directory, a store such as LmdbStore(...), or None"
        raise MemoError(complaint("memo", memo, want))
    return memo


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
