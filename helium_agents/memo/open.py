"""Opening the store that `memo=` names."""

from __future__ import annotations

from pathlib import Path

from helium_agents.errors import MemoError
from helium_agents.graph.arguments import complaint
from helium_agents.memo.memory import MemoryStore
from helium_agents.memo.shared import shared_store
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
