"""Provenance, listing, deleting and pruning."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from stores import ENTRY_BYTES, AnyStore, Clock, fill, key, present

from helium_agents.errors import MemoError
from helium_agents.memo.entry import decode_provenance, encode_provenance, entry_bytes
from helium_agents.memo.lmdb import LmdbStore


def provenance_of(store: AnyStore, name: bytes) -> bytes:
    entry = store.find(name)
    return entry.provenance if entry else b""


TALK = b'{"role": "user", "content": "What does the document say?"}' * 50


# --- provenance ----------------------------------------------------------------------------------


@pytest.mark.parametrize("provenance", [b"", b"?", bytes(range(256)) * 2, TALK, TALK * 300])
def test_provenance_comes_back_and_damage_is_noticed(provenance: bytes) -> None:
    record = encode_provenance(provenance)
    assert decode_provenance(record) == provenance
    assert len(record) == entry_bytes(b"", "", provenance) - entry_bytes(b"", "")
    for at in range(min(len(record), 60)):
        assert decode_provenance(record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]) is None
        assert not decode_provenance(record[:at])


def test_provenance_goes_with_its_entry(make_store: Callable[..., AnyStore]) -> None:
    clock = Clock()
    store = make_store(clock=clock, ttl_s=10)
    for is_committed in (False, True):
        store.put(key(1), b"one", label="a", provenance=TALK)
        if is_committed:
            store.commit().result(60)
        assert provenance_of(store, key(1)) == TALK
        assert store.get(key(1)) == b"one"
        clock.now_s += 11
        assert provenance_of(store, key(1)) == b""
        clock.now_s -= 11
        store.put(key(1), b"two", label="a")
        if is_committed:
            store.commit().result(60)
        assert provenance_of(store, key(1)) == b""
    store.put(key(1), b"six", label="a")
    assert store.stats().num_bytes == entry_bytes(b"six", "a")
    assert provenance_of(store, key(1)) == b""


@pytest.mark.parametrize(
    "remove",
    [
        lambda store: store.prune(max_bytes=0, among=[key(1)]),
        lambda store: store.prune(max_bytes=0),
    ],
)
def test_provenance_is_removed_with_its_entry(
    path: Path, remove: Callable[[LmdbStore], int]
) -> None:
    with closing(LmdbStore(path)) as store:
        store.put(key(1), b"one", label="a", provenance=TALK)
        assert remove(store) == 1
        assert store.find(key(1)) is None
        store.put(key(1), b"two", label="a")
        assert provenance_of(store, key(1)) == b""
        assert store.verify().problems == []


def test_provenance_counts_and_is_left_out_where_it_does_not_fit(
    make_store: Callable[..., AnyStore],
) -> None:
    store = make_store(max_bytes=2 * ENTRY_BYTES)
    store.put(key(1), bytes(1000), label="a", provenance=os.urandom(500))
    fill(store, range(2, 3))
    store.commit().result(60)
    assert present(store, range(1, 3)) == [2]  # the two and the provenance were too much
    store.put(key(1), bytes(1000), label="a", provenance=b"x" * 2 * ENTRY_BYTES)
    assert store.get(key(1)) is not None
    assert provenance_of(store, key(1)) == b""
    store.commit().result(60)
    assert provenance_of(store, key(1)) == b""
    assert store.stats().num_bytes == 2 * ENTRY_BYTES


def test_provenance_is_counted_as_it_is_on_disk(path: Path) -> None:
    with closing(LmdbStore(path)) as store:
        store.put(key(1), b"one", label="a", provenance=TALK)
        num_bytes = store.stats().num_bytes
        assert num_bytes == entry_bytes(b"one", "a") + len(encode_provenance(TALK))
        (found,) = store.entries()
        assert found.num_bytes == num_bytes


# --- entries, prune ----------------------------------------------------------------------------


def test_entries_come_newest_first_and_hold_no_reader(path: Path) -> None:
    clock = Clock()
    with closing(LmdbStore(path, clock=clock)) as store:
        for name in range(100):
            clock.now_s += name % 3 == 0  # several of the same second
            store.put(key(name), b"%d" % name, label="even" if name % 2 == 0 else "odd")
        found = store.entries()
        assert {entry.key for entry in found} == set(map(key, range(100)))
        assert found == sorted(found, key=lambda e: (e.created_s, e.key), reverse=True)
        assert store._use().env.readers().strip().startswith("(no")


def test_a_damaged_entry_is_listed_but_not_found(path: Path) -> None:
    with closing(LmdbStore(path)) as store:
        fill(store, range(5))
        store.commit().result(60)
        opened = store._use()
        with opened.env.begin(write=True) as txn:
            txn.put(key(3), b"damaged", db=opened.tables.entries)
        names = {entry.key for entry in store.entries() if store.find(entry.key)}
        assert names == set(map(key, range(5))) - {key(3)}


def test_prune_what_is_listed(path: Path) -> None:
    with closing(LmdbStore(path)) as store:
        for name in range(60):
            store.put(key(name), bytes(10), label="bc"[name % 2], provenance=b"f")
        of_b = [entry.key for entry in store.entries() if entry.label == "b"]
        assert store.prune(max_bytes=0, among=of_b) == 30
        assert store.prune(max_bytes=0, among=[key(0), key(1), key(1)]) == 1
        assert present(store, range(60)) == list(range(3, 60, 2))
        assert store.verify().problems == []


def test_prune_by_use_and_key(path: Path) -> None:
    with closing(LmdbStore(path)) as store:
        fill(store, range(20))
        store.commit().result(60)
        assert present(store, range(10, 12)) == [10, 11]  # used
        among = set(map(key, range(10, 20)))
        assert store.prune(max_bytes=4 * ENTRY_BYTES, among=among) == 6
        assert present(store, range(20)) == [*range(10), 10, 11, 18, 19]
        assert store.prune(max_bytes=0, among=set(map(key, range(10)))) == 10
        assert store.prune(max_bytes=10**9) == 0
        assert store.prune() == 0
        assert store.stats().num_entries == 4


def test_prune_by_age_whatever_the_clock_did(path: Path) -> None:
    clock = Clock()
    with closing(LmdbStore(path, clock=clock, ttl_s=1000)) as store:
        for name, age_s in enumerate((0, 50, 150, 1500, -50, -150)):
            store.put(key(name), b"", label="a", created_s=clock.now_s - age_s)
        assert store.prune(among=()) == 0
        assert store.prune() == 1  # expired
        assert store.prune(older_than_s=100) == 2
        assert present(store, range(6)) == [0, 1, 4]
        clock.now_s -= 10_000  # all are from a far future now
        assert present(store, range(6)) == []
        assert store.prune() == 3
        with pytest.raises(MemoError, match="time"):
            store.put(key(1), b"", label="a", created_s=float("nan"))


def test_read_only_stores_show_and_do_not_remove(path: Path) -> None:
    with closing(LmdbStore(path)) as store:
        store.put(key(1), b"one", label="a", provenance=b"asked")
    with closing(LmdbStore(path, read_only=True)) as store:
        assert provenance_of(store, key(1)) == b"asked"
        assert [entry.key for entry in store.entries()] == [key(1)]
        assert store.verify().problems == []
        with pytest.raises(MemoError, match="read-only"):
            store.prune()
