"""The persistent store, in an LMDB directory."""

from helium_agents.memo.lmdb.store import LmdbStore

__all__ = ["LmdbStore"]
