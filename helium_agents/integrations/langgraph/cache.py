"""LangGraph's node cache and LangChain's cache of models on a store of ours.

Neither is asked while a computation is under way, so neither merges what is: a node that fails says
so to nobody, and whoever waited for it would hang. `ChatHelium` and pure operators do merge.

Nothing is deleted: what was cleared is no longer found, since the keys of what comes after differ,
and the store's bound evicts it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from langchain_core.caches import BaseCache as BaseModelCache
from langchain_core.load import dumps, loads
from langgraph.cache.base import BaseCache as BaseNodeCache

from helium_agents.keys.encoding import decode, encode, fingerprint
from helium_agents.memo.open import open_store
from helium_agents.memo.store import Store

_Namespace = tuple[str, ...]
_FullKey = tuple[_Namespace, str]


class _Shelf:
    """Values by namespace and key in a store.

    Args:
        kind: What they are; values of different kinds do not meet.
        store: A store, or a directory for one.
    """

    def __init__(self, kind: str, store: str | Path | Store) -> None:
        self._kind = kind
        self._store = open_store(store)

    def get(self, namespace: _Namespace, key: str) -> Any:
        """The value; `None` where there is none, or its time is over."""
        data = self._store.get(self._key(namespace, key))
        if data is None:
            return None
        expires_s, value = decode(data)
        return value if expires_s is None or time.time() < expires_s else None

    def put(self, namespace: _Namespace, key: str, value: Any, ttl_s: int | None = None) -> None:
        """Keep a value, for a time."""
        expires_s = None if ttl_s is None else time.time() + ttl_s
        self._store.put(self._key(namespace, key), encode((expires_s, value)), label=self._kind)

    def clear(self, namespaces: Sequence[_Namespace] | None) -> None:
        """Forget what is in some namespaces, or in all."""
        for namespace in [None] if namespaces is None else namespaces:
            self._store.put(self._clearing_key(namespace), uuid.uuid4().bytes, label=self._kind)

    def committed(self) -> Future[None]:
        """Done when all that was put is durable."""
        return self._store.commit()

    def _key(self, namespace: _Namespace, key: str) -> bytes:
        clearings = [self._store.get(self._clearing_key(each)) for each in (None, namespace)]
        return fingerprint(self._kind, namespace, key, *clearings)

    def _clearing_key(self, namespace: _Namespace | None) -> bytes:
        return fingerprint(self._kind, "cleared", namespace)


class HeliumCache(BaseNodeCache[Any]):
    """LangGraph's cache of nodes: ``graph.compile(cache=HeliumCache("memo"))``.

    Args:
        store: A store, or a directory for one; a session's memo may be the same store object.
        serde: LangGraph's serializer of values.
    """

    def __init__(self, store: str | Path | Store, *, serde: Any = None) -> None:
        super().__init__(serde=serde)
        self._shelf = _Shelf("langgraph node", store)

    def get(self, keys: Sequence[_FullKey]) -> dict[_FullKey, Any]:
        """The values that are there."""
        found = {key: self._shelf.get(*key) for key in keys}
        return {key: self.serde.loads_typed(it) for key, it in found.items() if it is not None}

    async def aget(self, keys: Sequence[_FullKey]) -> dict[_FullKey, Any]:
        """The same."""
        return self.get(keys)

    def set(self, pairs: Mapping[_FullKey, tuple[Any, int | None]]) -> None:
        """Keep values, each for so many seconds."""
        for (namespace, key), (value, ttl_s) in pairs.items():
            if "__dynamic__" in namespace:
                warnings.warn(
                    f"LangGraph cannot tell the function of the node {namespace[-1]!r} from others "
                    "of that name, so another graph may be given its cached values: use functions "
                    "at the top of a module as cached nodes",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._shelf.put(namespace, key, self.serde.dumps_typed(value), ttl_s)
        self._shelf.committed().result()

    async def aset(self, pairs: Mapping[_FullKey, tuple[Any, int | None]]) -> None:
        """The same."""
        await asyncio.to_thread(self.set, pairs)

    def clear(self, namespaces: Sequence[_Namespace] | None = None) -> None:
        """Forget what is in these namespaces, by default in all."""
        self._shelf.clear(namespaces)
        self._shelf.committed().result()

    async def aclear(self, namespaces: Sequence[_Namespace] | None = None) -> None:
        """The same."""
        await asyncio.to_thread(self.clear, namespaces)


class HeliumModelCache(BaseModelCache):
    """LangChain's cache of models, for other chat models than ours: ``set_llm_cache(...)``.

    Args:
        store: A store, or a directory for one.
    """

    def __init__(self, store: str | Path | Store) -> None:
        self._shelf = _Shelf("langchain model", store)

    def lookup(self, prompt: str, llm_string: str) -> Any:
        """What was generated for a prompt; `None` where nothing was."""
        found = self._shelf.get((llm_string,), prompt)
        return None if found is None else [loads(each, allowed_objects="core") for each in found]

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        """Keep what was generated."""
        self._shelf.put((llm_string,), prompt, [dumps(each) for each in return_val])
        self._shelf.committed().result()

    def clear(self, **kwargs: Any) -> None:
        """Forget everything."""
        self._shelf.clear(None)
        self._shelf.committed().result()
