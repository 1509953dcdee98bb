"""The run log: a run is taken up again, and nothing that is not one is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from helium_agents.errors import MemoError
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.run_log import RunLog

KEY = b"k" * 32
ABOUT = {"model": "some model", "input": "some rows"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.run"


def begin(path: Path, value: bytes = b"value") -> str:
    """A run with one answer, stopped; returns its id."""
    with RunLog(path, ABOUT) as log:
        assert not log.is_resumed
        log.store.put(KEY, value, label="llm")
    return log.run_id


def test_a_run_goes_on_under_its_id_with_its_answers(path: Path) -> None:
    run_id = begin(path)
    for _ in range(2):
        with RunLog(path, ABOUT) as log:
            assert (log.is_resumed, log.run_id) == (True, run_id)
            assert log.store.get(KEY) == b"value"


def test_runs_have_different_ids(tmp_path: Path) -> None:
    assert begin(tmp_path / "one.run") != begin(tmp_path / "other.run")


def test_notes_are_those_of_the_beginning(path: Path) -> None:
    with RunLog(path, ABOUT, {"source": "first"}) as log:
        assert log.notes == {"source": "first"}
    with RunLog(path, ABOUT, {"source": "second"}) as log:
        assert log.notes == {"source": "first"}


@pytest.mark.parametrize("name", ABOUT)
def test_other_work_is_not_resumed(path: Path, name: str) -> None:
    run_id = begin(path)
    with pytest.raises(MemoError, match=rf"its {name} has changed \({ABOUT[name]}, now another\)"):
        RunLog(path, ABOUT | {name: "another"})
    with RunLog(path, ABOUT) as log:
        assert log.run_id == run_id


def test_whether_anything_was_kept(path: Path) -> None:
    with RunLog(path) as log:
        assert log.is_empty
        log.store.put(KEY, b"value", label="llm")
        assert not log.is_empty
    assert not log.is_empty, "closed: nobody can tell"


def test_only_the_user_may_read_it(path: Path) -> None:
    begin(path)
    assert path.stat().st_mode & 0o77 == 0


def test_a_finished_run_leaves_nothing(path: Path) -> None:
    begin(path)
    RunLog(path, ABOUT).remove()
    assert list(path.parent.iterdir()) == []
    assert begin(path), "another may begin"


@pytest.mark.parametrize("present", [(), ("run.json.part",), ("run.json.part", "data.mdb")])
def test_what_a_kill_at_the_beginning_or_end_leaves_is_no_run(
    path: Path, present: tuple[str, ...]
) -> None:
    path.mkdir()
    for name in present:
        (path / name).write_text('{"run_id"')
    assert not RunLog.is_in(path)
    begin(path)


def test_wherever_deleting_stops_no_run_lacks_its_answers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each removal of a file fails in turn; what is left is a whole run, or none."""
    unlink, num_left = os.unlink, 0

    def failing(*arguments: object, **options: object) -> None:
        nonlocal num_left
        if not num_left:
            raise OSError("killed here")
        num_left -= 1
        unlink(*arguments, **options)  # type: ignore[arg-type]

    for num_removed in range(3):
        begin(path)
        num_left = num_removed
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", failing)
            with pytest.raises(MemoError, match="killed here"):
                RunLog.discard(path)
        assert not RunLog.is_in(path)
        RunLog.discard(path)
        assert not path.exists()


def test_a_memo_is_not_a_run(path: Path) -> None:
    store = LmdbStore(path)
    store.put(KEY, b"precious", label="llm")
    store.close()
    with pytest.raises(MemoError, match=r"is not the log of a run \(it holds data.mdb\): move it"):
        RunLog(path)
    with pytest.raises(MemoError, match="is not the log of a run"):
        RunLog.discard(path)
    store = LmdbStore(path)
    assert store.get(KEY) == b"precious"
    store.close()


def test_other_files_are_never_deleted(path: Path) -> None:
    begin(path)
    (path / "thesis.tex").write_text("precious")
    with pytest.raises(MemoError, match=r"it holds thesis.tex"):
        RunLog.discard(path)
    (path / "run.json").unlink()
    with pytest.raises(MemoError, match="is not the log of a run"):
        RunLog(path)
    assert (path / "thesis.tex").read_text() == "precious"
    with pytest.raises(MemoError, match="it is a file"):
        RunLog(path / "thesis.tex")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"run_id": "x", "about": {}})])
def test_a_damaged_log_is_an_error(path: Path, text: str) -> None:
    begin(path)
    (path / "run.json").write_text(text)
    with pytest.raises(MemoError, match="is not the log of a run"):
        RunLog(path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MemoError, match=r"no run can be logged in .*/none/out.run"):
        RunLog(tmp_path / "none" / "out.run")
