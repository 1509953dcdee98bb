"""Provenance, listing, deleting and pruning; format 1 and its migration."""

from __future__ import annotations

import os
import signal
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lmdb
import pytest
import xxhash
from stores import ENTRY_BYTES, AnyStore, Clock, fill, key, present, start

from helium_agents.errors import MemoError
from helium_agents.memo import lmdb as lmdb_store
from helium_agents.memo import lmdb_scan
from helium_agents.memo.entry import stored_bytes
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.provenance import decode_provenance, encode_provenance, provenance_bytes

TALK = b'{"role": "user", "content": "What does the document say?"}' * 50


# --- provenance ----------------------------------------------------------------------------------


@pytest.mark.parametrize("provenance", [b"", b"?", bytes(range(256)) * 2, TALK, TALK * 300])
def test_provenance_comes_back_and_damage_is_noticed(provenance: bytes) -> None:
    record = encode_provenance(provenance)
    assert decode_provenance(record) == provenance
    assert len(record) == (provenance_bytes(provenance) or 9)
    for at in range(min(len(record), 60)):
        assert decode_provenance(record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]) is None
        assert decode_provenance(record[:at]) is None


def test_provenance_goes_with_its_entry(make_store: Callable[..., AnyStore]) -> None:
    clock = Clock()
    store = make_store(clock=clock, ttl_s=10)
    for is_committed in (False, True):
        store.put(key(1), b"one", label="a", provenance=TALK)
        if is_committed:
            store.commit().result(5)
        assert store.provenance(key(1)) == TALK
        assert store.get(key(1)) == b"one"
        clock.now_s += 11
        assert store.provenance(key(1)) is None
        clock.now_s -= 11
        store.put(key(1), b"two", label="a")
        if is_committed:
            store.commit().result(5)
        assert store.provenance(key(1)) is None
    store.put(key(1), b"three", label="a", provenance=TALK)
    assert store.delete([key(1)]) == 1
    assert store.provenance(key(1)) is None
    store.put(key(1), b"four", label="a")
    assert store.provenance(key(1)) is None
    store.put(key(1), b"five", label="a", provenance=TALK)
    assert store.clear() == 1
    store.put(key(1), b"six", label="a")
    assert store.stats().num_bytes == stored_bytes(b"six", "a")
    assert store.provenance(key(1)) is None
    assert store.verify().problems == []


def test_provenance_counts_and_is_left_out_where_it_does_not_fit(
    make_store: Callable[..., AnyStore],
) -> None:
    store = make_store(max_bytes=2 * ENTRY_BYTES)
    store.put(key(1), bytes(1000), label="a", provenance=os.urandom(500))
    fill(store, range(2, 3))
    store.commit().result(5)
    assert present(store, range(1, 3)) == [2]  # the two and the provenance were too much
    store.put(key(1), bytes(1000), label="a", provenance=b"x" * 2 * ENTRY_BYTES)
    assert store.get(key(1)) is not None
    assert store.provenance(key(1)) is None
    store.commit().result(5)
    assert store.provenance(key(1)) is None
    assert store.stats().num_bytes == 2 * ENTRY_BYTES


def test_provenance_is_counted_as_it_is_on_disk(path: Path) -> None:
    with closing(LmdbStore(path)) as store:
        store.put(key(1), b"one", label="a", provenance=TALK)
        num_bytes = store.stats().num_bytes
        assert num_bytes == stored_bytes(b"one", "a") + len(encode_provenance(TALK))
        (found,) = store.entries()
        assert (found.num_bytes, found.has_provenance) == (num_bytes, True)


def test_what_an_earlier_release_compressed_is_none_and_no_damage(path: Path) -> None:
    with closing(LmdbStore(path)) as store:
        store.put(key(1), b"one", label="a", provenance=b"asked")
    packed = zlib.compress(b"asked")
    record = struct.pack("<BQ", 1, xxhash.xxh3_64_intdigest(packed, seed=1)) + packed
    with lmdb.open(str(path), max_dbs=8) as env:
        table = env.open_db(b"facts")
        with env.begin(write=True) as txn:
            txn.put(key(1), record, db=table)
    with closing(LmdbStore(path)) as store:
        assert store.provenance(key(1)) is None
        assert [entry.provenance for entry in store.scan()] == [b""]
        assert store.stats().num_corrupt == 0
        assert all("bytes" in problem for problem in store.verify().problems)


# --- format 1 ----------------------------------------------------------------------------------


def make_format_1(path: Path, num_entries: int = 20) -> None:
    """A directory as the first release wrote it: no table of provenance, no bound."""
    with closing(LmdbStore(path)) as store:
        fill(store, range(num_entries))
    with lmdb.open(str(path), max_dbs=8) as env:
        provenance, meta = env.open_db(b"facts"), env.open_db(b"meta")
        with env.begin(write=True) as txn:
            txn.drop(provenance)
            txn.delete(b"max_bytes", db=meta)
            txn.put(b"format", b"1", db=meta)


def format_of(path: Path) -> bytes:
    with lmdb.open(str(path), max_dbs=8, readonly=True) as env, env.begin() as txn:
        return bytes(txn.get(b"format", db=env.open_db(b"meta", txn=txn, create=False)))


def table_names(path: Path) -> set[bytes]:
    with lmdb.open(str(path), max_dbs=8, readonly=True) as env, env.begin() as txn:
        return set(txn.cursor().iternext(values=False))


def test_format_1_is_migrated_in_place(path: Path) -> None:
    make_format_1(path)
    with closing(LmdbStore(path)) as store:
        assert present(store, range(20)) == list(range(20))
        store.put(key("new"), b"new", label="a", provenance=b"asked")
        assert store.verify().problems == []
    assert format_of(path) == b"2"
    with closing(LmdbStore(path)) as store:
        assert store.provenance(key("new")) == b"asked"
        assert store.stats().num_entries == 21


def test_format_1_can_be_only_read(path: Path) -> None:
    make_format_1(path)
    with closing(LmdbStore(path, read_only=True)) as store:
        assert present(store, range(20)) == list(range(20))
        assert store.provenance(key(1)) is None
        assert [entry.has_provenance for entry in store.entries()] == [False] * 20
        assert len(list(store.scan())) == 20
        assert store.verify().problems == []
    assert format_of(path) == b"1"


def test_killed_in_mid_migration_leaves_format_1(path: Path) -> None:
    make_format_1(path)
    code = """
    import signal
    from helium_agents.memo import lmdb_tables
    migrate = lmdb_tables._migrate
    def die_after(*args):
        migrate(*args)
        print("migrated, not committed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    lmdb_tables._migrate = die_after
    LmdbStore(path).open()
    """
    process = start(code, path)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (-signal.SIGKILL, "migrated, not committed\n")
    assert format_of(path) == b"1"
    assert b"facts" not in table_names(path)
    with closing(LmdbStore(path)) as store:
        assert store.verify().problems == []
        assert present(store, range(20)) == list(range(20))
    assert format_of(path) == b"2"


# --- entries, delete, prune --------------------------------------------------------------------


def test_entries_come_newest_first_over_many_pages(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_store, "_FIRST_PAGE", 3)
    monkeypatch.setattr(lmdb_store, "_NEXT_PAGES", 7)
    clock = Clock()
    with closing(LmdbStore(path, clock=clock)) as store:
        for name in range(100):
            clock.now_s += name % 3 == 0  # several of the same second
            store.put(key(name), b"%d" % name, label="even" if name % 2 == 0 else "odd")
        found = list(store.entries())
        assert {entry.key for entry in found} == set(map(key, range(100)))
        assert found == sorted(found, key=lambda e: (e.created_s, e.key), reverse=True)
        assert [e for e in found if e.label == "odd"] == list(store.entries(label="odd"))
        # a pause holds no reader, and what is put meanwhile does no harm
        walk = store.entries()
        first = [next(walk) for _ in range(5)]
        store.put(key("new"), b"new", label="even")
        store.commit().result(5)
        assert all(reader.startswith("(no") for reader in [store._use().env.readers().strip()])
        assert first + list(walk) == found


def test_scan_goes_page_by_page(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_scan, "_PAGE_ROWS", 7)
    with closing(LmdbStore(path)) as store:
        fill(store, range(50))
        store.commit().result(5)
        rewrite_open(store, key(9), b"damaged")
        names = {entry.key for entry in store.scan()}
        assert names == set(map(key, range(50))) - {key(9)}
        monkeypatch.setattr(lmdb_scan, "_PAGE_BYTES", 2000)
        assert {entry.key for entry in store.scan()} == names
        assert store.stats().num_corrupt == 2


def rewrite_open(store: LmdbStore, name: bytes, record: bytes) -> None:
    opened = store._use()
    with opened.env.begin(write=True) as txn:
        txn.put(name, record, db=opened.tables.entries)


def test_delete_while_listing(make_store: Callable[..., AnyStore]) -> None:
    store = make_store()
    for name in range(60):
        store.put(key(name), bytes(10), label="bc"[name % 2], provenance=b"f")
    assert store.delete(entry.key for entry in store.entries(label="b")) == 30
    assert store.delete([key(0), key(1), key(1)]) == 1
    assert present(store, range(60)) == list(range(3, 60, 2))
    with pytest.raises(MemoError, match="32 bytes"):
        store.delete([key(3), b"short"])
    assert store.verify().problems == []


def test_delete_in_several_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "_DELETED_AT_ONCE", 7)
    monkeypatch.setattr(lmdb_scan, "_PAGE_ROWS", 5)
    with closing(LmdbStore(path)) as store:
        fill(store, range(100))
        assert store.delete(map(key, range(40))) == 40
        assert store.prune(max_bytes=20 * ENTRY_BYTES) == 40
        assert present(store, range(100)) == list(range(80, 100))
        assert store.prune(older_than_s=0.0) == 20


def test_prune_by_use_and_label(make_store: Callable[..., AnyStore]) -> None:
    store = make_store()
    fill(store, range(10))
    for name in range(10, 20):
        store.put(key(name), bytes(1000), label="b")
    store.commit().result(5)
    assert present(store, range(10, 12)) == [10, 11]  # used
    assert store.prune(max_bytes=4 * ENTRY_BYTES, label="b") == 6
    assert present(store, range(20)) == [*range(10), 10, 11, 18, 19]
    assert store.prune(max_bytes=0, label="a") == 10
    assert store.prune(max_bytes=10**9) == 0
    assert store.prune() == 0
    assert store.stats().num_by_label == {"b": 4}


def test_prune_by_age_whatever_the_clock_did(make_store: Callable[..., AnyStore]) -> None:
    clock = Clock()
    store = make_store(clock=clock, ttl_s=1000)
    for name, age_s in enumerate((0, 50, 150, 1500, -50, -150)):
        store.put(key(name), b"", label="a", created_s=clock.now_s - age_s)
    assert store.prune(label="other") == 0
    assert store.prune() == 1  # expired
    assert store.prune(older_than_s=100) == 2
    assert present(store, range(6)) == [0, 1, 4]
    clock.now_s -= 10_000  # all are from a far future now
    assert present(store, range(6)) == []
    assert store.prune() == 3
    with pytest.raises(MemoError, match="time"):
        store.put(key(1), b"", label="a", created_s=float("nan"))


def test_prune_spares_what_was_replaced_meanwhile(path: Path) -> None:
    clock = Clock()
    with closing(LmdbStore(path, clock=clock)) as store:
        store.put(key(1), b"old", label="a")
        store.commit().result(5)
        victims = list(store._old(-1, None))
        clock.now_s += 5
        store.put(key(1), b"new", label="a")
        assert len(victims) == 1
        assert store._remove(victims) == 0
        assert store.get(key(1)) == b"new"


def test_read_only_stores_show_and_do_not_remove(path: Path) -> None:
    with closing(LmdbStore(path)) as store:
        store.put(key(1), b"one", label="a", provenance=b"asked")
    with closing(LmdbStore(path, read_only=True)) as store:
        assert store.provenance(key(1)) == b"asked"
        assert [entry.key for entry in store.entries()] == [key(1)]
        assert store.verify().problems == []
        for use in (lambda: store.delete([key(1)]), store.prune):
            with pytest.raises(MemoError, match="read-only"):
                use()
