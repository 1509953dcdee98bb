"""What the world does to a memo: full disks, missing rights, the dead, the deleted, the dropped."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from stores import fill, finish, forked, key, present, start

from helium_agents.errors import MemoError
from helium_agents.memo.lmdb import LmdbStore, directory, environment, writer

NOBODY = 65534


# --- crowds ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_commit_ends_although_company_never_does(path: Path) -> None:
    with closing(LmdbStore(path)) as store:
        store.put(key("first"), b"x", label="a")
        done, number = store.commit(), 0
        give_up_s = time.monotonic() + 20
        while not done.done() and time.monotonic() < give_up_s:
            number += 1
            store.put(key(number), b"x", label="a")
        assert done.done() and number >= writer._COMPANY
        done.result()


# --- disks -------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(mount)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def take_all_room(disk: Path, name: str = "ballast") -> Path:
    with open(disk / name, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return disk / name


def test_a_full_disk_that_is_emptied_goes_on(small_disk: Path) -> None:
    path = small_disk / "memo"
    store = LmdbStore(path)
    fill(store, range(50))
    store.commit().result(60)
    ballast = take_all_room(small_disk)
    with pytest.raises(MemoError, match="free some space"):
        for name in range(50, 1000):
            fill(store, range(name, name + 1))
            store.commit().result(60)
    assert present(store, range(50)) == list(range(50))
    store.close()
    with closing(LmdbStore(path, read_only=True)) as reader:
        assert reader.verify().problems == []
    ballast.unlink()
    with closing(LmdbStore(path)) as store:
        fill(store, range(2000, 2050))
        store.commit().result(60)
        assert present(store, range(50)) == list(range(50))
        assert store.verify().problems == []


def test_opening_on_a_full_disk_is_an_error_and_no_crash(small_disk: Path) -> None:
    take_all_room(small_disk)
    (small_disk / "ballast").rename(small_disk / "b")
    for _ in range(2):
        said = forked(LmdbStore(small_disk / "memo").open)
        assert said.startswith("MemoError") and "free some space" in said, said
    (small_disk / "b").unlink()
    with closing(LmdbStore(small_disk / "memo")) as store:
        fill(store, range(3))


def test_a_lost_lock_file_on_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "memo"
    with closing(LmdbStore(path)) as store:
        fill(store, range(3))
    (path / "lock.mdb").unlink()
    take_all_room(small_disk)
    assert "free some space" in forked(LmdbStore(path, read_only=True).open)
    assert not (path / "lock.mdb").exists()


def test_a_file_system_that_is_read_only(small_disk: Path) -> None:
    path = small_disk / "memo"
    with closing(LmdbStore(path)) as store:
        fill(store, range(20))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with closing(LmdbStore(path, read_only=True)) as store:
        assert present(store, range(20)) == list(range(20))
        assert store.verify().problems == []
    with pytest.raises(MemoError, match=r"[Rr]ead-only|writable"):
        LmdbStore(path).open()
    with pytest.raises(MemoError, match=r"[Rr]ead-only|writable"):
        LmdbStore(small_disk / "other").open()


# --- rights ------------------------------------------------------------------------------------


def as_nobody(path: Path, **options: bool) -> str:
    def count() -> int:
        with closing(LmdbStore(path, **options)) as store:
            return sum(1 for _ in store.entries())

    return forked(count, user=NOBODY)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A place that other users can come to."""
    root = Path(f"/tmp/helium-test-{os.getpid()}")
    root.mkdir(mode=0o755)
    yield root / "memo"
    for found in (root, *root.rglob("*")):
        found.chmod(0o755)
    shutil.rmtree(root)


def test_a_directory_that_may_not_be_written(open_path: Path) -> None:
    with closing(LmdbStore(open_path)) as store:
        fill(store, range(7))
    open_path.chmod(0o555)
    for name in ("data.mdb", "lock.mdb"):
        (open_path / name).chmod(0o444)
    assert "read_only=True" in as_nobody(open_path)
    if os.getuid() == 0:
        assert "permissions" in as_nobody(open_path, read_only=True)


def test_a_directory_that_may_not_be_read_or_made(open_path: Path) -> None:
    with closing(LmdbStore(open_path)) as store:
        fill(store, range(7))
    (open_path / "data.mdb").chmod(0o000)
    open_path.parent.chmod(0o555)
    for mode in (0o755, 0o000):
        open_path.chmod(mode)
        for read_only in (False, True):
            said = as_nobody(open_path, read_only=read_only)
            assert said.startswith("MemoError") and str(open_path) in said, said
    assert "permissions" in as_nobody(open_path.parent / "new")


# --- readers that died, writers that grew it ---------------------------------------------------

DIES_READING = """
store = LmdbStore(path, read_only=True)
store.open()
txns = [store._opened.env.begin() for _ in range(int(sys.argv[2]))]
print(len(store._opened.env.readers().splitlines()) - 1, flush=True)
os.kill(os.getpid(), 9)
"""


def num_readers(store: LmdbStore) -> int:
    lines = store._use().env.readers().splitlines()
    return sum(line.strip()[:1].isdigit() for line in lines)


def test_slots_of_killed_readers_are_freed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_READER_CHECK_S", 0.0)
    store = LmdbStore(path)
    fill(store, range(3))
    store.commit().result(60)
    process = start(DIES_READING, path, 5)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (-signal.SIGKILL, "5\n")
    assert num_readers(store) == 5
    fill(store, range(3, 6))
    store.commit().result(60)
    assert num_readers(store) == 0
    store.close()


def test_a_read_finds_a_slot_among_the_dead(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MAX_READERS", 64)
    with closing(LmdbStore(path)) as store:
        fill(store, range(3))
        store.commit().result(60)
        num_slots = store._use().env.info()["max_readers"]
        out, _ = start(DIES_READING, path, num_slots).communicate(timeout=60)
        assert out == f"{num_slots}\n"
        assert num_readers(store) == num_slots
        assert present(store, range(3)) == [0, 1, 2]
        assert num_readers(store) == 0


def test_a_process_with_a_larger_bound_grows_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
    store = LmdbStore(path, max_bytes=10**9)
    for i in range(100):
        store.put(key(("large", i)), bytes(100_000), label="b")
    store.close()
    """
    store = LmdbStore(path)
    store.open()  # the address range is large enough for all
    finish(start(code, path))
    assert store.stats().num_entries == 100
    store.prune(max_bytes=0)
    store.close()
    shutil.rmtree(path)
    # ... where the system allows it: else the error says what helps
    monkeypatch.setattr(environment, "_MIN_MAP_BYTES", 0)
    monkeypatch.setattr(environment, "map_bytes", lambda *_: 2**20)
    store = LmdbStore(path)
    fill(store, range(3))
    store.commit().result(60)
    finish(start(code, path))
    with pytest.raises(MemoError, match="open it again"):
        store.get(key(1))
    store.close()
    monkeypatch.undo()
    with closing(LmdbStore(path)) as store:
        assert present(store, range(3)) == [0, 1, 2]
        assert store.verify().problems == []


def test_a_limited_address_space(path: Path) -> None:
    def put() -> str:
        resource.setrlimit(resource.RLIMIT_AS, (100 * 2**30, 100 * 2**30))
        with closing(LmdbStore(path)) as store:
            store.put(key(1), b"one", label="a")
        return "fits"

    assert forked(put) == "fits"


@pytest.mark.parametrize("is_replaced", [False, True])
def test_deleted_under_an_open_store(path: Path, is_replaced: bool) -> None:
    store = LmdbStore(path)
    fill(store, range(3))
    store.commit().result(60)
    shutil.rmtree(path)
    if is_replaced:
        code = "store = LmdbStore(path); store.put(key(9), b'', label='a'); store.close()"
        finish(start(code, path))
    fill(store, range(3, 6))
    with pytest.raises(MemoError, match="deleted, moved or replaced"):
        store.commit().result(60)
    store.close()
    with closing(LmdbStore(path)) as store:
        assert store.stats().num_entries == is_replaced
        fill(store, range(3))
        store.commit().result(60)


def test_a_relative_path_survives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = LmdbStore("memo")
    store.open()
    monkeypatch.chdir("/")
    fill(store, range(3))
    store.commit().result(60)
    store.close()


# --- stores that nobody closed -----------------------------------------------------------------


def test_a_dropped_store_writes_what_is_pending(path: Path) -> None:
    store = LmdbStore(path)
    fill(store, range(10))
    del store
    with closing(LmdbStore(path)) as store:  # at once: the dropped one has let go
        assert present(store, range(10)) == list(range(10))
    reader = LmdbStore(path, read_only=True)
    reader.open()
    del reader
    LmdbStore(path, read_only=True).open()
    gc.collect()
    LmdbStore(path).open()


def test_a_dropped_store_is_collected_from_a_cycle_on_any_thread(path: Path) -> None:
    class Holder:
        pass

    holder = Holder()
    holder.me, holder.store = holder, LmdbStore(path)  # type: ignore[attr-defined]
    fill(holder.store, range(10))  # type: ignore[attr-defined]
    del holder
    gc.collect()
    with closing(LmdbStore(path)) as store:
        assert store.stats().num_entries == 10


def test_a_collection_in_the_middle_of_the_writer_does_not_block_it(path: Path) -> None:
    store = LmdbStore(path)
    store.open()
    opened = store._opened
    assert opened is not None
    assert opened.writer is not None
    fill(store, range(10))
    done = threading.Event()

    def drop() -> None:  # as the garbage collector may, wherever memory is asked for
        with opened.writer._changed:  # type: ignore[union-attr]
            opened.abandon(0.01)
        done.set()

    threading.Thread(target=drop, daemon=True).start()
    assert done.wait(10)
    store.close()
    with closing(LmdbStore(path)) as store:
        assert store.stats().num_entries == 10


def test_the_program_ends_without_close(path: Path) -> None:
    code = """
    store = LmdbStore(path)
    store.put(key(0), b"acknowledged", label="a")
    store.commit().result()
    for i in range(1, 500):
        store.put(key(i), b"pending", label="a")
    """
    finish(start(code, path))
    with closing(LmdbStore(path)) as store:
        assert store.get(key(0)) == b"acknowledged"
        assert store.stats().num_entries == 500


@pytest.mark.slow
def test_the_program_ends_although_another_holds_the_lock(path: Path) -> None:
    code = """
    from helium_agents.memo.lmdb import directory
    directory._WAIT_AT_EXIT_S = 0.3
    store = LmdbStore(path)
    store.put(key(0), b"acknowledged", label="a")
    store.commit().result()
    print("ready", flush=True)
    sys.stdin.readline()
    store.put(key(1), b"pending", label="a")
    """
    store = LmdbStore(path)
    store.open()
    process = start(code, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with store._use().env.begin(write=True):
        finish(process)
    assert present(store, range(2)) == [0]
    store.close()


def test_a_drop_that_loses_puts_warns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_MIN_MAP_BYTES", 0)
    monkeypatch.setattr(environment, "map_bytes", lambda *_: 2**19)
    monkeypatch.setattr(writer, "_PUT_WINDOW_S", 60)
    store = LmdbStore(path)
    store.put(key(1), os.urandom(2**20), label="a")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del store
    assert "lost puts" in str(caught[0].message)
