"""A full check finds each kind of damage and names the entry; what is whole can be taken out."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import lmdb
import pytest
from stores import key, present

from helium_agents.errors import MemoError
from helium_agents.memo.lmdb import LmdbStore, check
from helium_agents.memo.portable import export_entries, import_entries

NAMES = range(12)
VICTIM = key(5)


@pytest.fixture
def memo(path: Path) -> Path:
    with closing(LmdbStore(path, max_bytes=10**6)) as store:
        for name in NAMES:
            store.put(key(name), b"%d" % name * 100, label="a", provenance=b"asked %d" % name)
    return path


def change(path: Path, table: bytes, name: bytes, value: bytes | None) -> bytes:
    with lmdb.open(str(path), max_dbs=8, map_size=2**30) as env:
        handle = env.open_db(table)
        with env.begin(write=True) as txn:
            before = bytes(txn.get(name, b"", db=handle))
            if value is None:
                txn.delete(name, db=handle)
            else:
                txn.put(name, value, db=handle)
    return before


def flip(path: Path, table: bytes, name: bytes, at: int) -> None:
    value = bytearray(change(path, table, name, None))
    value[at] ^= 1
    change(path, table, name, bytes(value))


def number(count: int) -> bytes:
    return count.to_bytes(8, "big")


DAMAGE: dict[str, tuple[Callable[[Path], Any], str, bool]] = {
    "payload": (lambda p: flip(p, b"entries", VICTIM, -1), "record is damaged", True),
    "record cut": (lambda p: change(p, b"entries", VICTIM, b"x"), "record is damaged", True),
    "record empty": (lambda p: change(p, b"entries", VICTIM, b""), "record is damaged", True),
    "record gone": (lambda p: change(p, b"entries", VICTIM, None), "index, but has no", True),
    "row gone": (lambda p: change(p, b"index", VICTIM, None), "no index row", True),
    "row cut": (lambda p: change(p, b"index", VICTIM, b"row"), "no index row", True),
    "row's size": (lambda p: flip(p, b"index", VICTIM, 8), "says .* bytes, not", False),
    "row's time": (lambda p: flip(p, b"index", VICTIM, 16), "another time or label", False),
    "row's label": (lambda p: flip(p, b"index", VICTIM, 24), "another time or label", False),
    "provenance": (lambda p: flip(p, b"facts", VICTIM, -1), "provenance is damaged", False),
    "provenance gone": (lambda p: change(p, b"facts", VICTIM, None), "says .* bytes, not", False),
    "orphans": (
        lambda p: change(p, b"facts", key("x"), b"?"),
        "provenance, but has no record",
        False,
    ),
    "short key": (lambda p: change(p, b"entries", b"short", b"?"), "has 5 bytes", False),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named_and_the_rest_can_be_carried_away(
    memo: Path, tmp_path: Path, damage: str
) -> None:
    inflict, words, is_lost = DAMAGE[damage]
    inflict(memo)
    with closing(LmdbStore(memo, read_only=True)) as store:
        found = store.verify()
        named = {"orphans": key("x"), "short key": b"short"}.get(damage, VICTIM)
        assert any(named.hex()[:16] in problem for problem in found.problems), found.problems
        assert [problem for problem in found.problems if re.search(words, problem)], found.problems
        export_entries(store, tmp_path / "whole")
    with closing(LmdbStore(tmp_path / "new")) as store:
        import_entries(store, tmp_path / "whole")
        assert store.verify().problems == []
        assert present(store, NAMES) == [name for name in NAMES if not (is_lost and name == 5)]


def test_counts_and_bound(memo: Path) -> None:
    true_count = change(memo, b"meta", b"num_bytes", number(7))
    with closing(LmdbStore(memo)) as store:
        assert store.verify().problems == [
            f"the count of live bytes is 7, but they are {int.from_bytes(true_count, 'big')}"
        ]
    change(memo, b"meta", b"num_bytes", true_count)
    change(memo, b"meta", b"max_bytes", number(1000))
    with closing(LmdbStore(memo)) as store:
        (problem,) = store.verify().problems
        assert "above the bound of 1000" in problem


def test_many_problems_are_counted(memo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_MAX_PROBLEMS", 3)
    for name in NAMES:
        change(memo, b"index", key(name), None)
    with closing(LmdbStore(memo, read_only=True)) as store:
        problems = store.verify().problems
        assert len(problems) == 4
        assert problems[-1] == "and 9 more"


def test_a_file_that_was_cut_is_described_and_does_not_kill(memo: Path) -> None:
    data = memo / "data.mdb"
    whole = data.read_bytes()
    for num_bytes in range(0, len(whole) - 4096, 4096 * 2):  # the last page is a free one
        data.write_bytes(whole[:num_bytes])
        for options in ({"read_only": True}, {}):
            store = LmdbStore(memo, **options)
            try:
                report = store.verify()
            except MemoError as error:  # an empty file is a new memo to a writer, none to a reader
                assert num_bytes == 0, error
            else:
                assert report.problems or num_bytes == 0
            if num_bytes:
                with pytest.raises(MemoError, match=r"damaged|not a memo"):
                    store.open()
            store.close()
    data.write_bytes(whole)
    with closing(LmdbStore(memo)) as store:
        assert store.verify().problems == []


def test_random_damage_is_described_and_does_not_kill(memo: Path) -> None:
    data = memo / "data.mdb"
    whole = data.read_bytes()
    drawn = random.Random(5)
    for _ in range(12):
        damaged = bytearray(whole)
        for _ in range(8):
            at = drawn.randrange(4096 * 2, len(whole))
            damaged[at : at + 8] = drawn.randbytes(8)
        data.write_bytes(damaged)
        with closing(LmdbStore(memo, read_only=True)) as store:
            try:
                store.verify()
            except MemoError as error:
                assert str(memo) in str(error)
    data.write_bytes(whole)


def test_tables_that_disagree_say_what_helps(memo: Path) -> None:
    change(memo, b"meta", b"num_bytes", number(10**9))
    with closing(LmdbStore(memo, max_bytes=2000)) as store:
        store.put(key("new"), bytes(1500), label="a")
        with pytest.raises(MemoError, match="export what is whole"):
            store.commit().result(60)
