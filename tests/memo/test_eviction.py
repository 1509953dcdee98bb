"""Eviction: exact where there are few entries, by a sample where there are many."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import lmdb
from stores import ENTRY_BYTES, fill, key, present

from helium_agents.memo.entry import entry_bytes
from helium_agents.memo.eviction import first_to_go, least_recently_used
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.store import EntryInfo


def entry(name: str, *, num_bytes: int, last_use: int) -> EntryInfo:
    return EntryInfo(name.encode(), "a", num_bytes, 0.0, last_use)


def test_so_many_go_as_are_too_much() -> None:
    entries = [
        entry("old", num_bytes=10, last_use=1),
        entry("new", num_bytes=10, last_use=3),
        entry("used", num_bytes=10, last_use=2),
    ]

    def gone(excess_bytes: int) -> list[bytes]:
        return list(first_to_go(entries, excess_bytes, least_recently_used))

    assert gone(0) == []
    assert gone(10) == [b"old"]
    assert gone(11) == [b"old", b"used"]
    assert gone(99) == [b"old", b"used", b"new"]


def test_a_policy_of_your_own(path: Path) -> None:
    def largest_first(entry: EntryInfo) -> float:
        return -entry.num_bytes

    def bound(*sizes: int) -> int:
        return sum(entry_bytes(bytes(size), "a") for size in sizes)

    with closing(LmdbStore(path, max_bytes=bound(100, 50, 200), eviction=largest_first)) as store:
        for name, size in enumerate((100, 300, 50, 200)):
            store.put(key(name), bytes(size), label="a")
        store.commit().result(60)
        assert present(store, range(4)) == [0, 2, 3]
        assert store.prune(max_bytes=bound(100, 50)) == 1
        assert present(store, range(4)) == [0, 2]


def test_of_many_what_was_used_lately_stays(path: Path) -> None:
    with closing(LmdbStore(path, max_bytes=2000 * ENTRY_BYTES)) as store:
        fill(store, range(2000))
        store.commit().result(60)
        assert present(store, range(100)) == list(range(100))
        random.seed(5)
        fill(store, range(2000, 2500))
        store.commit().result(60)
        assert random.random() == random.Random(5).random()  # the program's draws are its own
        assert store.stats().num_bytes == 2000 * ENTRY_BYTES
        assert present(store, range(100)) == list(range(100))
        assert len(present(store, range(2000, 2500))) == 500
        assert store.verify().problems == []


def test_a_memo_that_kept_an_order_goes_on_with_it(path: Path) -> None:
    with closing(LmdbStore(path)) as store:
        fill(store, range(10))
    with lmdb.open(str(path), max_dbs=8, map_size=2**30) as env:  # as they were made before
        meta, recency = env.open_db(b"meta"), env.open_db(b"recency")
        with env.begin(write=True) as txn:
            txn.delete(b"num_uses", db=meta)
            txn.put((1).to_bytes(8, "big"), key(0), db=recency)
    with closing(LmdbStore(path, max_bytes=10 * ENTRY_BYTES)) as store:
        fill(store, range(10, 12))
        store.commit().result(60)
        assert present(store, range(12)) == list(range(2, 12))
