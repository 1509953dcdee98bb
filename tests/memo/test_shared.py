"""`shared_store`: one store for a directory, open until the last who uses it closes it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from helium_agents import LmdbStore
from helium_agents.errors import MemoError
from helium_agents.memo.open import open_store, shared_store

KEY = bytes(32)


def test_it_is_open_until_the_last_closes_it(tmp_path: Path) -> None:
    one, other = shared_store(tmp_path / "memo"), open_store(str(tmp_path / "." / "memo"))
    assert one is other
    one.put(KEY, b"value", label="l")
    one.close()
    assert other.get(KEY) == b"value"
    with pytest.raises(MemoError, match="already open"):
        LmdbStore(tmp_path / "memo").open()
    other.close()
    again = shared_store(tmp_path / "memo")
    assert again is not one and again.get(KEY) == b"value"
    again.close()


def test_what_cannot_be_opened_is_not_kept(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(MemoError):
            shared_store(tmp_path / "none", read_only=True)


def test_threads_that_open_and_close_it_do_not_meet(tmp_path: Path) -> None:
    errors: list[MemoError] = []

    def use() -> None:
        for _ in range(10):
            try:
                store = shared_store(tmp_path / "memo")
                store.put(KEY, b"value", label="l")
                store.close()
            except MemoError as error:
                errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
