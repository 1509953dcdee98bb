"""Output files: there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from helium_agents.batch.output import MadeOf, Output
from helium_agents.errors import InputError
from helium_agents.memo.run_log import RunLog

MADE_OF = MadeOf(run_id="run", about={"model": "one"}, source="", num_rows=2, num_failed=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_file_has_its_name_only_when_it_is_finished(path: Path) -> None:
    with Output(path) as output:
        output.write("1")
        output.write("é")
        assert not path.exists()
        assert output.part.read_bytes() == "1\né\n".encode()
        output.finish(MADE_OF)
    assert path.read_text(encoding="utf-8") == "1\né\n"
    assert not output.part.exists()
    assert output.num_lines == 2


def test_finished_without_lines_is_an_empty_file(path: Path) -> None:
    with Output(path) as output:
        output.finish(MADE_OF)
    assert path.read_bytes() == b""


def test_unfinished_lines_stay_in_the_part_file(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Output(path) as output:
        output.write("1")
        raise ZeroDivisionError
    assert not path.exists()
    assert output.part.read_text() == "1\n"
    with pytest.raises(InputError, match=r"part holds the rows of a run .* overwrite=True"):
        Output(path)


def test_without_lines_nothing_stays(path: Path) -> None:
    with Output(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_an_existing_output_needs_overwrite_and_is_there_until_replaced(path: Path) -> None:
    path.write_text("old\n")
    with pytest.raises(InputError, match=r"out.jsonl exists: add overwrite=True"):
        Output(path)
    with Output(path, overwrite=True) as output:
        output.write("new")
        assert path.read_text() == "old\n"
        output.finish(MADE_OF)
    assert path.read_text() == "new\n"


def test_overwriting_drops_earlier_lines_at_once(path: Path) -> None:
    with Output(path) as output:
        output.write("earlier")
    with Output(path, overwrite=True) as output:
        assert output.part.read_bytes() == b""  # what follows belongs to another run
        output.write("1")
    assert output.part.read_text() == "1\n"


def resumed(path: Path) -> tuple[list[bytes], bytes]:
    """The whole lines of an unfinished output, and what is in it after one more."""
    with Output(path, resume=True) as output:
        lines = list(output.read_lines())
        output.write("more")
    assert output.num_lines == len(lines) + 1
    return lines, output.part.read_bytes()


@pytest.mark.parametrize("torn", [b"", b"2", b'{"half', b"\0\0\0"])
def test_resuming_goes_on_after_the_last_whole_line(path: Path, torn: bytes) -> None:
    with Output(path) as output:
        output.write("1")
        output.write("é")
    with output.part.open("ab") as file:
        file.write(torn)
    whole = [b"1\n", "é\n".encode()]
    assert resumed(path) == (whole, b"".join(whole) + b"more\n")


def test_resuming_what_was_only_a_torn_line(path: Path) -> None:
    Output(path).part.write_bytes(b'{"half')
    assert resumed(path) == ([], b"more\n")


def test_resuming_before_anything_was_written(path: Path) -> None:
    assert resumed(path) == ([], b"more\n")


def test_resuming_without_reading_to_the_end_cuts_nothing(path: Path) -> None:
    Output(path).part.write_bytes(b"1\n2\n3")
    with Output(path, resume=True) as output:
        assert next(output.read_lines()) == b"1\n"
    assert output.part.read_bytes() == b"1\n2\n3"


def test_whether_there_is_anything_to_resume(path: Path) -> None:
    path.write_text("1\n")
    assert Output(path, resume=True).is_finished
    assert not Output(path, overwrite=True).is_finished
    output = Output(path, resume=True)
    output.part.touch()
    assert output.is_finished, "nothing has begun"
    with RunLog(output.run_path):
        assert not output.is_finished
    output.part.write_text("2\n")
    RunLog.discard(output.run_path)
    assert not output.is_finished, "lines that nothing is known of"


def test_two_runs_cannot_write_one_output(path: Path) -> None:
    with Output(path) as output:
        output.write("1")
        with (
            pytest.raises(InputError, match="another run is writing"),
            Output(path, overwrite=True),
        ):
            pass
        with (
            pytest.raises(InputError, match="another run is writing"),
            Output(path, resume=True),
        ):
            pass
        output.write("2")
        output.finish(MADE_OF)
    assert path.read_text() == "1\n2\n"


def test_output_that_another_run_has_just_finished_is_not_truncated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Output(path) as output:
        output.write("1")
        opening = os.open

        def finish_in_between(*arguments: Any) -> int:
            fd = opening(*arguments)
            monkeypatch.undo()
            output.finish(MADE_OF)
            return fd

        monkeypatch.setattr(os, "open", finish_in_between)
        with (
            pytest.raises(InputError, match="another run is writing"),
            Output(path, overwrite=True),
        ):
            pass
    assert path.read_text() == "1\n"


def test_symbolic_link_is_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path.symlink_to(tmp_path / "data" / "real.jsonl")
    with Output(path) as output:
        output.write("1")
        output.finish(MADE_OF)
    assert path.is_symlink()
    assert (tmp_path / "data" / "real.jsonl").read_text() == "1\n"
    assert MadeOf.read(Output(path, resume=True).target).about == MADE_OF.about, (
        "kept beside the real one"
    )
    assert {file.name for file in tmp_path.iterdir()} == {"data", "out.jsonl"}


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no directory .*/none"):
        Output(tmp_path / "none" / "out.jsonl")
    with pytest.raises(InputError, match="not a regular file"):
        Output(Path("/dev/null"), overwrite=True)
    with pytest.raises(InputError, match="not a regular file"):
        Output(tmp_path, overwrite=True)
