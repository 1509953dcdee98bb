"""Both stores against a dict; the LMDB one against kills, forks, full disks and company."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import lmdb
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from stores import (
    ENTRY_BYTES,
    PRELUDE,
    ROOT,
    AnyStore,
    Clock,
    fill,
    finish,
    key,
    present,
    rewrite,
    start,
)

from helium_agents.errors import MemoError
from helium_agents.memo.entry import decode, encode, entry_bytes
from helium_agents.memo.lmdb import LmdbStore, environment, writer
from helium_agents.memo.lmdb import store as lmdb_store
from helium_agents.memo.lmdb.check import Report
from helium_agents.memo.memory import MemoryStore
from helium_agents.memo.store import Entry

# --- against a dict ----------------------------------------------------------------------------

NAMES = range(7)
KEYS = st.sampled_from(NAMES).map(key)
MAX_BYTES = 20_000
TTL_S = 100.0


PROVENANCE = st.one_of(st.just(b""), st.binary(max_size=40))
LABELS = st.sampled_from(["", "a", "ünï"])


class StoreMachine(RuleBasedStateMachine):
    """A store and the dict it should equal; the bound is never reached by what is small."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.oracle: dict[bytes, Entry] = {}

    def make(self) -> AnyStore:
        raise NotImplementedError

    @initialize()
    def start(self) -> None:
        self.store = self.make()

    def is_live(self, entry: Entry, ttl_s: float = TTL_S) -> bool:
        return abs(self.clock.now_s - entry.created_s) <= ttl_s

    def live(self) -> dict[bytes, Entry]:
        return {k: entry for k, entry in self.oracle.items() if self.is_live(entry)}

    @rule(k=KEYS, value=st.binary(max_size=200), label=LABELS, provenance=PROVENANCE)
    def put(self, k: bytes, value: bytes, label: str, provenance: bytes) -> None:
        self.store.put(k, value, label=label, provenance=provenance)
        self.oracle.pop(k, None)
        self.oracle[k] = Entry(k, label, self.clock.now_s, value, provenance)

    @rule(k=KEYS, age_s=st.sampled_from([-200.0, -10.0, 10.0, 200.0]))
    def put_as_of(self, k: bytes, age_s: float) -> None:
        created_s = self.clock.now_s - age_s
        self.store.put(k, b"imported", label="i", created_s=created_s)
        self.oracle[k] = Entry(k, "i", created_s, b"imported", b"")

    @rule(k=KEYS, num_more=st.integers(1, 3))
    def put_too_large(self, k: bytes, num_more: int) -> None:
        header_bytes = entry_bytes(b"", "x")
        self.store.put(k, bytes(MAX_BYTES - header_bytes + num_more), label="x", provenance=b"f")
        self.oracle.pop(k, None)

    @rule(step_s=st.sampled_from([-150.0, -60.0, 1.0, 60.0, 150.0]))
    def tick(self, step_s: float) -> None:
        self.clock.now_s += step_s

    @rule()
    def commit(self) -> None:
        self.store.commit().result(60)

    @rule()
    def stats(self) -> None:
        live = self.live().values()
        stats = self.store.stats()
        labels = {entry.label for entry in live}
        assert stats.num_entries == len(live)
        assert stats.num_bytes == sum(map(counted_bytes, live))
        assert set(stats.num_by_label) == set(stats.bytes_by_label) == labels
        assert stats.oldest_s == min((entry.created_s for entry in live), default=None)
        assert stats.newest_s == max((entry.created_s for entry in live), default=None)
        assert stats.num_corrupt == 0

    @rule()
    def list_all(self) -> None:
        by_age = sorted(self.live().values(), key=lambda e: (e.created_s, e.key), reverse=True)
        listed = self.store.entries()
        assert [info[:4] for info in listed] == [
            (e.key, e.label, counted_bytes(e), e.created_s) for e in by_age
        ]
        assert len({info.last_use for info in listed}) == len(listed)

    @invariant()
    def all_equal(self) -> None:
        if hasattr(self, "store"):
            live = self.live()
            for k in map(key, NAMES):
                assert self.store.get(k) == (live[k].value if k in live else None)
                assert self.store.find(k) == live.get(k)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


def counted_bytes(entry: Entry) -> int:
    return entry_bytes(entry.value, entry.label, entry.provenance)


class MemoryMachine(StoreMachine):
    def make(self) -> AnyStore:
        return MemoryStore(max_bytes=MAX_BYTES, ttl_s=TTL_S, clock=self.clock)


class LmdbMachine(StoreMachine):
    directory: str | None = None

    def make(self) -> AnyStore:
        self.directory = self.directory or tempfile.mkdtemp()
        return LmdbStore(self.directory, max_bytes=MAX_BYTES, ttl_s=TTL_S, clock=self.clock)

    @property
    def lmdb(self) -> LmdbStore:
        assert isinstance(self.store, LmdbStore)
        return self.store

    @rule(keys=st.lists(KEYS, max_size=3))
    def delete(self, keys: list[bytes]) -> None:
        expected = len(set(keys) & set(self.oracle))
        assert self.lmdb.prune(max_bytes=0, among=keys) == expected
        for k in keys:
            self.oracle.pop(k, None)

    @rule(older_than_s=st.sampled_from([None, 0.0, 30.0]), is_among=st.booleans())
    def prune_old(self, older_than_s: float | None, is_among: bool) -> None:
        limit_s = TTL_S if older_than_s is None else older_than_s
        among = [key(name) for name in NAMES[::2]] if is_among else None
        old = [
            k
            for k, entry in self.oracle.items()
            if (among is None or k in among) and not self.is_live(entry, limit_s)
        ]
        assert self.lmdb.prune(older_than_s=older_than_s, among=among) == len(old)
        for k in old:
            del self.oracle[k]

    @precondition(lambda self: len(self.oracle) > 3)
    @rule()
    def clear(self) -> None:
        assert self.lmdb.prune(max_bytes=0) == len(self.oracle)
        self.oracle.clear()

    @rule()
    def verify(self) -> None:
        report = self.lmdb.verify()
        num_bytes = sum(map(counted_bytes, self.oracle.values()))
        assert report == Report(len(self.oracle), num_bytes, [])

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.make()

    @rule()
    def check_tables(self) -> None:
        self.store.stats()  # opens it, if nothing did
        self.store.close()
        assert_tables_agree(Path(self.directory or ""))
        self.store = self.make()

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.directory or "", ignore_errors=True)


def assert_tables_agree(path: Path) -> None:
    """Read a closed store's file without its code: index and count must fit the entries."""
    with lmdb.open(str(path), max_dbs=8, readonly=True) as env:
        names = (b"meta", b"entries", b"facts", b"index")
        meta, *tables = (env.open_db(name, create=False) for name in names)
        with env.begin() as txn:
            entries, provenance, index = (
                {k: v for k, v in txn.cursor(db=table)} for table in tables
            )
            stored = txn.get(b"num_bytes", db=meta)
    assert set(entries) == set(index)
    last_uses = {row[:8] for row in index.values()}
    assert len(last_uses) == len(index)
    assert set(provenance) <= set(entries)
    num_bytes = sum(len(k) + len(record) for k, record in entries.items())
    num_bytes += sum(len(record) for record in provenance.values())
    assert num_bytes == (int.from_bytes(stored, "big") if stored else 0)


@pytest.mark.parametrize(("machine", "max_examples"), [(MemoryMachine, 60), (LmdbMachine, 20)])
def test_store_equals_a_dict(
    machine: type[StoreMachine], max_examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_store, "probe", lambda _: None)  # it takes 0.1 s each time
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- the port's promises -----------------------------------------------------------------------


def test_put_is_visible_before_the_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_PUT_WINDOW_S", 60)
    monkeypatch.setattr(writer, "_COMMIT_WINDOW_S", 60)
    store = LmdbStore(path)
    store.put(key(1), b"one", label="a")
    future = store.commit()
    assert store.get(key(1)) == b"one"
    assert not future.done()
    store.close()
    assert future.done()
    with pytest.raises(MemoError, match="closed"):
        store.get(key(1))


def test_commit_comes_soon_and_alone_within_the_window(path: Path) -> None:
    store = LmdbStore(path)
    assert store.commit().done()
    store.put(key(1), b"one", label="a")
    store.commit().result(60)
    store.put(key(2), b"two", label="a")
    deadline_s = time.monotonic() + 60
    while store._opened.writer.lookup(key(2)) is not None:  # type: ignore[union-attr]
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    assert store.get(key(2)) == b"two"
    store.close()


def test_commit_waits_for_what_is_being_written(path: Path) -> None:
    store = LmdbStore(path)
    store.open()
    opened = store._opened
    assert opened is not None
    assert opened.writer is not None
    # Hold LMDB's write lock, as another process would.
    with opened.env.begin(write=True):
        store.put(key(1), b"one", label="a")
        deadline_s = time.monotonic() + 60
        while opened.writer._pending:
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        future = store.commit()
        time.sleep(0.02)
        assert not future.done()
        assert store.get(key(1)) == b"one"
    future.result(60)
    store.close()


def test_cancelled_commit_does_not_stop_the_writer(path: Path) -> None:
    store = LmdbStore(path)
    store.put(key(1), b"one", label="a")
    assert store.commit().cancel()
    store.put(key(2), b"two", label="a")
    store.commit().result(60)
    store.close()


def test_misuse_is_explained(make_store: Callable[..., AnyStore]) -> None:
    store = make_store()
    with pytest.raises(MemoError, match="32 bytes"):
        store.get(b"short")
    with pytest.raises(MemoError, match="32 bytes"):
        store.put(b"short", b"", label="a")
    with pytest.raises(MemoError, match="label"):
        store.put(key(1), b"", label="x" * 70_000)
    for options in ({"max_bytes": 0}, {"ttl_s": -1.0}):
        with pytest.raises(MemoError, match=next(iter(options))):
            make_store(**options)
    store.close()
    store.close()
    for use in (lambda: store.put(key(1), b"", label="a"), store.entries, store.stats):
        with pytest.raises(MemoError, match="closed"):
            use()


def test_threads_share_a_store(make_store: Callable[..., AnyStore]) -> None:
    store = make_store()
    wrong: list[int] = []

    def work(who: int) -> None:
        for i in range(200):
            name = who * 1000 + i
            store.put(key(name), b"%d" % name, label="t")
            if i % 20 == 0:
                store.commit().result(60)
            if store.get(key(name)) != b"%d" % name:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert store.stats().num_entries == 800


# --- bound, order and age ----------------------------------------------------------------------


def test_bound_holds_and_the_least_recently_used_go(make_store: Callable[..., AnyStore]) -> None:
    store = make_store(max_bytes=10 * ENTRY_BYTES)
    fill(store, range(10))
    store.commit().result(60)
    assert present(store, range(2)) == [0, 1]  # used: the others are older now
    fill(store, range(10, 14))
    assert store.stats().num_bytes == 10 * ENTRY_BYTES
    assert present(store, range(14)) == [0, 1, 6, 7, 8, 9, 10, 11, 12, 13]


def test_one_batch_larger_than_the_bound(make_store: Callable[..., AnyStore]) -> None:
    store = make_store(max_bytes=10 * ENTRY_BYTES)
    fill(store, range(100))
    assert store.stats().num_entries == 10
    assert present(store, range(100)) == list(range(90, 100))


def test_order_of_use_survives_close(path: Path) -> None:
    with_room = LmdbStore(path)
    fill(with_room, range(10))
    with_room.commit().result(60)
    with_room.get(key(0))
    with_room.close()
    store = LmdbStore(path, max_bytes=10 * ENTRY_BYTES)
    fill(store, range(10, 15))
    store.commit().result(60)
    assert present(store, range(15)) == [0, *range(6, 15)]
    store.close()


@pytest.mark.parametrize("names", [range(31, 40), range(10)], ids=["newest", "oldest"])
def test_reads_are_noted_with_the_next_write_if_that_is_worth_it(path: Path, names: range) -> None:
    store = LmdbStore(path)
    fill(store, range(40))
    store.commit().result(60)

    def last_transaction() -> int:
        return int(store._use().env.info()["last_txnid"])

    before = last_transaction()
    present(store, names)
    assert last_transaction() == before, "reading writes nothing"
    store.close()
    with closing(LmdbStore(path)) as store:
        is_written = int(store._use().env.info()["last_txnid"]) > before
        assert is_written == (names == range(10)), "only the oldest are worth a write"
        last_used = sorted(store.entries(), key=lambda entry: entry.last_use)[-10:]
        assert {key(name) for name in range(10)} == {e.key for e in last_used} or not is_written


@pytest.mark.parametrize("is_committed", [False, True])
def test_entries_age(make_store: Callable[..., AnyStore], is_committed: bool) -> None:
    clock = Clock()
    store = make_store(ttl_s=10, clock=clock)
    store.put(key(1), b"one", label="a")
    if is_committed:
        store.commit().result(60)
    for step_s, is_hit in ((10, True), (0.5, False), (-10.5, True), (-10, True), (-0.5, False)):
        clock.now_s += step_s
        assert (store.get(key(1)) is not None) == is_hit
        if is_committed:
            assert store.stats().num_entries == is_hit


# --- damage and versions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record[:-1] + bytes([record[-1] ^ 1]),
        lambda record: record[:12] + bytes([record[12] ^ 64]) + record[13:],
        lambda record: b"\xff" + record[1:],
        lambda record: record[:-3],
        lambda record: record[:5],
    ],
    ids=["payload", "time", "version", "cut", "header cut"],
)
def test_damaged_entry_is_a_miss_and_is_counted(
    path: Path, damage: Callable[[bytes], bytes]
) -> None:
    store = LmdbStore(path)
    store.put(key(1), b"payload", label="a")
    store.put(key(2), b"other", label="a")
    store.close()
    rewrite(path, b"entries", key(1), damage)
    store = LmdbStore(path)
    assert store.get(key(1)) is None
    assert store.get(key(2)) == b"other"
    assert store.stats().num_corrupt == 1
    store.put(key(1), b"again", label="a")
    store.commit().result(60)
    assert store.get(key(1)) == b"again"
    store.close()
    assert_tables_agree(path)


def test_every_flipped_bit_is_noticed() -> None:
    record = encode(b"payload", label="a", created_s=12.5)
    assert decode(key(1), record) == Entry(key(1), "a", 12.5, b"payload")
    for bit in range(8 * len(record)):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        assert decode(key(1), bytes(damaged)) is None


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("found", "words"), [(b"99", "newer.*upgrade"), (b"1", "older.*delete"), (b"?", "not a memo")]
)
def test_other_formats_are_refused(path: Path, found: bytes, words: str, read_only: bool) -> None:
    store = LmdbStore(path)
    store.open()
    store.close()
    rewrite(path, b"meta", b"format", lambda _: found)
    with lmdb.open(str(path), max_dbs=8) as env:  # which may have other tables
        table = env.open_db(b"facts")
        with env.begin(write=True) as txn:
            txn.drop(table)
    with pytest.raises(MemoError, match=words):
        LmdbStore(path, read_only=read_only).get(key(1))


def test_other_files_are_left_alone(path: Path) -> None:
    path.mkdir()
    with lmdb.open(str(path), max_dbs=2) as env, env.begin(write=True) as txn:
        txn.put(b"somebody", b"else")
    with pytest.raises(MemoError, match="not a memo"):
        LmdbStore(path).open()
    (path / "data.mdb").write_bytes(b"no such thing" * 1000)
    with pytest.raises(MemoError, match="not a memo"):
        LmdbStore(path).open()
    with pytest.raises(MemoError, match="file"):
        LmdbStore(path / "data.mdb").open()


def test_modes(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "memo"
    before = os.umask(0)
    try:
        store = LmdbStore(path)
        store.open()
    finally:
        os.umask(before)
    store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {f.name: stat.S_IMODE(f.stat().st_mode) for f in path.iterdir()} == {
        "data.mdb": 0o600,
        "lock.mdb": 0o600,
    }


def test_read_only(path: Path) -> None:
    with pytest.raises(MemoError, match="no memo"):
        LmdbStore(path, read_only=True).get(key(1))
    assert not path.exists()
    store = LmdbStore(path)
    store.put(key(1), b"one", label="a")
    store.close()
    reader = LmdbStore(path, read_only=True)
    assert reader.get(key(1)) == b"one"
    assert reader.stats().num_entries == 1
    reader.commit().result(0)
    for use in (lambda: reader.put(key(2), b"", label="a"), reader.prune):
        with pytest.raises(MemoError, match="read-only"):
            use()
    reader.close()


def test_second_store_in_one_process_is_refused(path: Path) -> None:
    store = LmdbStore(path)
    store.open()
    with pytest.raises(MemoError, match="use one store"):
        LmdbStore(path).open()
    store.close()


# --- full disks and long queues ----------------------------------------------------------------


def assert_fails_loudly(store: LmdbStore, words: str) -> None:
    """Put until nothing more fits: no future may be done without its values being there."""
    futures: list[tuple[int, Future[None]]] = []
    failure = None
    for name in range(200):
        try:
            store.put(key(name), os.urandom(50_000), label="a")
        except MemoError as error:
            failure = error
            break
        futures.append((name, store.commit()))
        if name % 4 == 0:
            futures[-1][1].exception(10)
    assert failure is not None
    assert any(future.exception(10) is not None for _, future in futures)
    for name, future in futures:
        error = future.exception(10)
        assert (store.get(key(name)) is not None) == (error is None)
        if error is not None:
            assert isinstance(error, MemoError)
    with pytest.raises(MemoError, match=words):
        store.put(key("more"), b"", label="a")
    with pytest.raises(MemoError, match=words):
        store.commit().result(0)
    with pytest.raises(MemoError, match=words):
        store.prune(max_bytes=0)


def test_full_map(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_MIN_MAP_BYTES", 0)
    monkeypatch.setattr(environment, "map_bytes", lambda *_: 2**20)
    with closing(LmdbStore(path)) as store:
        assert_fails_loudly(store, "max_bytes")
    monkeypatch.undo()
    store = LmdbStore(path)
    assert store.stats().num_entries > 5
    store.put(key("more"), b"fits now", label="a")
    store.commit().result(60)
    store.close()
    assert_tables_agree(path)


def test_full_disk(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(mount)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here; test_full_map covers the rest")
    try:
        with closing(LmdbStore(mount / "memo")) as store:
            assert_fails_loudly(store, "free some space")
        with closing(LmdbStore(mount / "memo", read_only=True)) as store:
            assert store.stats().num_entries > 5
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_close_tells_of_a_failure_nobody_heard(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_MIN_MAP_BYTES", 0)
    monkeypatch.setattr(environment, "map_bytes", lambda *_: 2**19)
    store = LmdbStore(path)
    store.put(key(1), os.urandom(2**20), label="a")
    with pytest.raises(MemoError, match="max_bytes"):
        store.close()
    store.close()


def test_put_waits_for_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MAX_PENDING_BYTES", 10_000)
    store = LmdbStore(path)
    store.open()
    opened = store._opened
    assert opened is not None
    done = threading.Event()

    def put_all() -> None:
        fill(store, range(100))
        done.set()

    # Hold LMDB's write lock, as another process would.
    with opened.env.begin(write=True):
        thread = threading.Thread(target=put_all)
        thread.start()
        assert not done.wait(0.2)
        assert store._opened.writer._pending.num_bytes < 12_000  # type: ignore[union-attr]
        assert store.get(key(0)) is not None
    assert done.wait(10)
    thread.join()
    store.close()
    store = LmdbStore(path)
    assert present(store, range(100)) == list(range(100))
    store.close()


# --- several processes -------------------------------------------------------------------------

WRITE_AND_READ = """
me, others = int(sys.argv[2]), int(sys.argv[3])
store = LmdbStore(path)
store.open()
print("ready", flush=True)
sys.stdin.readline()
for i in range(150):
    store.put(key((me, i)), b"%d:%d" % (me, i) * 20, label=f"p{me}")
    store.put(key("shared"), b"%d" % me * 500, label="shared")
    if i % 10 == 0:
        store.commit().result(20)
    for other in range(others):
        value = store.get(key((other, i // 2)))
        assert value in (None, b"%d:%d" % (other, i // 2) * 20), value
    shared = store.get(key("shared"))
    assert len(set(shared)) == 1 and len(shared) == 500, shared
store.close()
"""


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_write_one_directory_at_once(path: Path, num_processes: int) -> None:
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                PRELUDE + WRITE_AND_READ,
                str(path),
                str(me),
                str(num_processes),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for me in range(num_processes)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        finish(process)
    store = LmdbStore(path)
    stats = store.stats()
    assert stats.num_by_label == {"shared": 1} | {f"p{me}": 150 for me in range(num_processes)}
    store.close()
    assert_tables_agree(path)


def test_bound_counts_what_other_processes_wrote(path: Path) -> None:
    code = """
    store = LmdbStore(path, max_bytes=20_000)
    for i in range(15):
        store.put(key(i), bytes(1000), label="other")
    store.close()
    """
    store = LmdbStore(path, max_bytes=20_000)
    store.put(key("mine"), bytes(1000), label="mine")
    store.commit().result(60)
    finish(start(code, path))
    assert store.get(key(14)) == bytes(1000)
    fill(store, range(100, 110))
    stats = store.stats()
    assert 20_000 - 2 * ENTRY_BYTES < stats.num_bytes <= 20_000
    assert store.get(key("mine")) is None
    assert present(store, range(100, 110)) == list(range(100, 110))
    store.close()


def test_killed_in_mid_write_keeps_what_was_acknowledged(path: Path) -> None:
    code = """
    store = LmdbStore(path)
    for i in range(10**9):
        store.put(key(i), b"%d" % i * 1000, label="a")
        if i % 3 == 0:
            store.commit().result()
            print(i, flush=True)
    """
    for round_s in (0.05, 0.11, 0.2):
        process = start(code, path)
        assert process.stdout is not None
        out = process.stdout.readline()
        time.sleep(round_s)
        process.send_signal(signal.SIGKILL)
        out += process.communicate(timeout=60)[0]
        acknowledged = [int(line) for line in out.splitlines(keepends=True) if line[-1] == "\n"]
        store = LmdbStore(path)
        for i in range(acknowledged[-1] + 1):
            assert store.get(key(i)) == b"%d" % i * 1000
        store.put(key("after"), b"alive", label="a")
        store.commit().result(60)
        store.prune(max_bytes=0)
        store.close()
    assert_tables_agree(path)


def test_fork(path: Path) -> None:
    """A forked child may not use an open store, but may open its directory, and harms nobody."""
    code = """
    import gc, threading
    opened, unopened = LmdbStore(path), LmdbStore(path + "2")
    with_reader = LmdbStore(path + "3")
    with_reader.get(key(1))
    opened.put(key(1), b"one", label="a")
    opened.commit().result()
    stop = threading.Event()
    def busy():
        i = 0
        while not stop.is_set():
            i += 1
            opened.put(key(i), b"x" * 1000, label="a")
            opened.commit().result()
    thread = threading.Thread(target=busy)
    thread.start()
    for _ in range(10):
        time.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for use in (lambda: opened.get(key(1)), opened.commit, opened.stats, opened.prune,
                            lambda: opened.put(key(1), b"", label="a")):
                    try:
                        use()
                    except MemoError:
                        continue
                    raise AssertionError("the child could use an inherited store")
                own = LmdbStore(path)
                assert own.get(key(1)) is not None
                own.put(key(-os.getpid()), b"child", label="child")
                own.commit().result()
                opened.close()
                assert own.get(key(-os.getpid())) == b"child"
                own.close()
                unopened.put(key(os.getpid()), b"child", label="a")
                unopened.commit().result()
                unopened.close()
                del opened, with_reader
                gc.collect()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert opened.get(key(1)) is not None
        assert with_reader.get(key(1)) is None
        assert opened.get(key(-pid)) == b"child"
    stop.set()
    thread.join()
    assert opened.verify().problems == []
    opened.close()
    print(unopened.stats().num_entries)
    unopened.close()
    """
    assert finish(start(code, path)) == "10\n"


def test_a_read_in_the_parent_is_not_disturbed_by_a_child(path: Path) -> None:
    """What a read sees stays where it is, however much a child writes meanwhile."""
    code = """
    store = LmdbStore(path)
    def fill(store, count):
        for number in range(count):
            store.put(key(number), os.urandom(1000), label="a")
    fill(store, 500)
    store.commit().result()
    asked, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.read(asked[0], 1)
            own = LmdbStore(path)
            for _ in range(20):
                fill(own, 500)
                own.commit().result()
            own.close()
            os.write(done[1], b"x")
            os.read(asked[0], 1)
            status = 0
        finally:
            os._exit(status)

    def read(txn, tables):
        before = list(txn.cursor(db=tables.entries))
        os.write(asked[1], b"x")
        os.read(done[0], 1)
        assert list(txn.cursor(db=tables.entries)) == before
        assert len(store._use().env.readers().splitlines()) > 1
        return len(before)

    assert store._use().read(read) == 500
    os.write(asked[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0
    assert store.verify().problems == []
    store.close()
    """
    finish(start(code, path))


def test_a_fork_amid_a_read_leaves_the_read_alone(path: Path) -> None:
    """The child then may not close what is being read, so it is told to open it elsewhere."""
    code = """
    store = LmdbStore(path)
    store.put(key(1), b"one", label="a")
    store.commit().result()

    def fork_amid(txn, tables):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                LmdbStore(path).open()
            except MemoError as error:
                status = 0 if "fork" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert len(store._use().env.readers().splitlines()) > 1
        return len(list(txn.cursor(db=tables.entries)))

    assert store._use().read(fork_amid) == 1
    store.close()
    """
    finish(start(code, path))


def test_a_forked_pool_remembers_in_one_directory(path: Path) -> None:
    """As a program would: a session with a memo is open, and workers open their own."""
    code = """
    import multiprocessing
    parent = LmdbStore(path)
    parent.put(key(0), b"parent", label="a")
    parent.commit().result()

    def work(number):
        store = LmdbStore(path)
        found = store.get(key(0))
        store.put(key(number), b"%d" % number, label="a")
        store.close()
        return found

    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(work, range(1, 13)) == [b"parent"] * 12
    assert [parent.get(key(number)) for number in range(1, 13)] == [
        b"%d" % number for number in range(1, 13)
    ]
    parent.close()
    """
    finish(start(code, path))


def test_map_covers_bound_and_file(path: Path) -> None:
    assert environment.map_bytes(path, 2**20) >= 2 * 2**20
    assert environment.map_bytes(path, 2**40) >= 2 * 2**40
    path.mkdir()
    with open(path / "data.mdb", "wb") as file:
        file.truncate(2**36)
    assert environment.map_bytes(path, 2**20) > 2**36
