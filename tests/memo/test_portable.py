"""Exported memos come back whole, and what is wrong with a file is said."""

from __future__ import annotations

import random
import stat
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from stores import AnyStore, Clock, key, present

from helium_agents.errors import MemoError
from helium_agents.memo.memory import MemoryStore
from helium_agents.memo.portable import ImportReport, export_entries, import_entries
from helium_agents.memo.store import Entry

NAMES = range(20)


def filled(num_entries: int = len(NAMES)) -> MemoryStore:
    store = MemoryStore(clock=Clock())
    for name in range(num_entries):
        store.put(
            key(name),
            random.Random(name).randbytes(name * 11),
            label="ünï" if name % 2 else "",
            provenance=b"asked" * (name % 3),
            created_s=1000.5 + name,
        )
    return store


def contents(store: AnyStore) -> list[Entry]:
    return [entry for info in store.entries() if (entry := store.find(info.key))]


def test_round_trip(make_store: Callable[..., AnyStore], tmp_path: Path) -> None:
    source, target, path = filled(), make_store(), tmp_path / "memo.export"
    path.write_bytes(b"an earlier one")
    assert export_entries(source, path) == len(NAMES)
    assert import_entries(target, path) == ImportReport(len(NAMES), 0, 0, [])
    assert contents(target) == contents(source)
    assert import_entries(target, path) == ImportReport(0, len(NAMES), 0, [])
    again, third = tmp_path / "again", MemoryStore(clock=Clock())
    export_entries(target, again)
    assert import_entries(third, again) == ImportReport(len(NAMES), 0, 0, [])
    assert contents(third) == contents(source)
    assert {file.name for file in tmp_path.iterdir()} - {"memo"} == {"memo.export", "again"}
    assert stat.S_IMODE(again.stat().st_mode) == 0o600


def test_by_label_and_empty(tmp_path: Path) -> None:
    assert export_entries(filled(), tmp_path / "x", label="ünï") == 10
    store = MemoryStore()
    assert import_entries(store, tmp_path / "x").num_imported == 10
    assert store.stats().num_by_label == {"ünï": 10}
    assert export_entries(filled(), tmp_path / "x", label="nobody's") == 0
    assert import_entries(store, tmp_path / "x") == ImportReport(0, 0, 0, [])


def test_existing_entries_are_kept_unless_newer(
    make_store: Callable[..., AnyStore], tmp_path: Path
) -> None:
    export_entries(filled(3), tmp_path / "x")
    store = make_store()
    for name, newer_s in enumerate((-1, 0, 1)):
        store.put(key(name), b"mine", label="m", created_s=1000.5 + name + newer_s)
    assert import_entries(store, tmp_path / "x") == ImportReport(1, 2, 0, [])
    assert [store.get(key(name)) == b"mine" for name in range(3)] == [False, True, True]


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    export_entries(filled(), path)
    whole = path.read_bytes()
    for num_bytes in (0, 14, 4096, len(whole) // 2 // 4096 * 4096):
        path.write_bytes(whole[:num_bytes])
        store = MemoryStore()
        with pytest.raises(MemoError, match=r"x is not an exported memo, or is damaged"):
            import_entries(store, path)
        assert contents(store) == []


def test_a_damaged_entry_is_skipped_and_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    export_entries(filled(), path)
    value = random.Random(15).randbytes(15 * 11)
    path.write_bytes(path.read_bytes().replace(value, b"?" + value[1:]))
    store = MemoryStore()
    report = import_entries(store, path)
    assert (report.num_imported, report.num_damaged) == (19, 1)
    assert report.problems == [f"entry {key(15).hex()[:16]}: its record is damaged"]
    assert present(store, NAMES) == [name for name in NAMES if name != 15]


def test_no_damage_makes_another_answer(tmp_path: Path) -> None:
    path, source = tmp_path / "x", filled(4)
    export_entries(source, path)
    whole, expected, drawn = path.read_bytes(), contents(source), random.Random(3)
    for _ in range(8):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[drawn.randrange(4096 * 2, len(whole))] ^= 1 << drawn.randrange(8)
        path.write_bytes(damaged)
        store = MemoryStore()
        try:
            report = import_entries(store, path)
        except MemoError as error:
            assert str(path) in str(error)
        else:
            assert report.problems or contents(store) == expected
        answers = {entry.key: entry.value for entry in expected}
        assert all(answers[entry.key] == entry.value for entry in contents(store))


def test_another_lmdb_file_is_no_export(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "x"), subdir=False, max_dbs=1) as env:
        env.open_db(b"somebody's")
    with pytest.raises(MemoError, match=r"x is not an exported memo: .*x holds an LMDB file"):
        import_entries(MemoryStore(), tmp_path / "x")


def test_paths_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(MemoError, match="there is no such file"):
        import_entries(MemoryStore(), tmp_path / "nothing")
    with pytest.raises(MemoError, match="another path"):
        export_entries(filled(), tmp_path / "no" / "such" / "place")
    (tmp_path / "d").mkdir()
    with pytest.raises(MemoError, match="another path"):
        export_entries(filled(), tmp_path / "d")
    assert [file.name for file in tmp_path.iterdir()] == ["d"]
