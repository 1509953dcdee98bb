"""What a session remembers without a memo: bounded in memory used, and without provenance."""

from __future__ import annotations

import math
import re
import tracemalloc
from datetime import timedelta
from typing import Any

import pytest

from helium_agents import Session, llm, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import MemoError
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.memory import MemoryStore
from helium_agents.memo.open import ENTRY_OVERHEAD_BYTES, open_store


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_small_entries_count_what_python_needs_for_them() -> None:
    num_entries, max_bytes = 20_000, 2 * 2**20
    tracemalloc.start()
    try:
        store = MemoryStore(max_bytes=max_bytes, overhead_bytes=ENTRY_OVERHEAD_BYTES)
        for number in range(num_entries):
            store.put(key(number), b"%060d" % number, label="llm")
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < store.stats().num_entries < num_entries
    assert used_bytes <= max_bytes
    assert store.get(key(0)) is None  # the oldest went
    assert store.get(key(num_entries - 1)) is not None


def test_the_store_of_no_memo_is_bounded_by_them() -> None:
    store = open_store(None)
    store.put(key(1), b"x", label="llm")
    assert store.stats().num_bytes > ENTRY_OVERHEAD_BYTES


async def test_provenance_are_kept_where_somebody_may_read_them() -> None:
    store = MemoryStore()
    async with Session(ScriptedEngine(), memo=store):
        await llm(user("x"))
    (entry,) = store.entries()
    found = store.find(entry.key)
    assert found is not None and found.provenance


@pytest.mark.parametrize("make", [MemoryStore, lambda **bounds: LmdbStore("unused", **bounds)])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_bytes", 0),
        ("max_bytes", 2.0**30),
        ("max_bytes", "4GB"),
        ("max_bytes", True),
        ("max_bytes", None),
        ("ttl_s", -1),
        ("ttl_s", math.nan),
        ("ttl_s", math.inf),
        ("ttl_s", "3"),
        ("ttl_s", timedelta(days=1)),
    ],
)
def test_wrong_bounds_are_refused_where_they_are_given(make: Any, name: str, value: Any) -> None:
    with pytest.raises(MemoError, match=f"{name}={re.escape(repr(value))}"):
        make(**{name: value})


@pytest.mark.parametrize("memo", [3, True, LmdbStore, {}, b"memo"])
def test_what_is_no_store_is_refused(memo: Any) -> None:
    with pytest.raises(MemoError, match=r"memo=.*directory"):
        open_store(memo)
