"""Both stores, and a place for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import AnyStore

from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.memory import MemoryStore


@pytest.fixture(params=["lmdb", "memory"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., AnyStore]]:
    opened: list[AnyStore] = []

    def make(**options: Any) -> AnyStore:
        is_lmdb = request.param == "lmdb"
        opened.append(
            LmdbStore(tmp_path / "memo", **options) if is_lmdb else MemoryStore(**options)
        )
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memo"
