"""Output files: there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from helium_agents.cli.output import Output
from helium_agents.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_file_has_its_name_only_when_it_is_finished(path: Path) -> None:
    with Output(path) as output:
        output.write("1")
        output.write("é")
        assert not path.exists()
        assert output.part.read_bytes() == "1\né\n".encode()
        output.finish()
    assert path.read_text(encoding="utf-8") == "1\né\n"
    assert not output.part.exists()
    assert output.num_lines == 2


def test_finished_without_lines_is_an_empty_file(path: Path) -> None:
    with Output(path) as output:
        output.finish()
    assert path.read_bytes() == b""


def test_unfinished_lines_stay_in_the_part_file(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Output(path) as output:
        output.write("1")
        raise ZeroDivisionError
    assert not path.exists()
    assert output.part.read_text() == "1\n"
    with pytest.raises(InputError, match=r"out.jsonl.part holds the rows of a run .* --overwrite"):
        Output(path)


def test_without_lines_nothing_stays(path: Path) -> None:
    with Output(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_an_existing_output_needs_overwrite_and_is_there_until_replaced(path: Path) -> None:
    path.write_text("old\n")
    with pytest.raises(InputError, match=r"out.jsonl exists: add --overwrite"):
        Output(path)
    with Output(path, overwrite=True) as output:
        output.write("new")
        assert path.read_text() == "old\n"
        output.finish()
    assert path.read_text() == "new\n"


def test_overwriting_spares_earlier_lines_until_there_are_new_ones(path: Path) -> None:
    with Output(path) as output:
        output.write("earlier")
    with Output(path, overwrite=True):
        pass
    assert output.part.read_text() == "earlier\n"
    with Output(path, overwrite=True) as output:
        output.write("1")
    assert output.part.read_text() == "1\n"


def test_two_runs_cannot_write_one_output(path: Path) -> None:
    with Output(path) as output:
        output.write("1")
        with (
            pytest.raises(InputError, match="another run is writing"),
            Output(path, overwrite=True),
        ):
            pass
        output.write("2")
        output.finish()
    assert path.read_text() == "1\n2\n"


def test_symbolic_link_is_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path.symlink_to(tmp_path / "data" / "real.jsonl")
    with Output(path) as output:
        output.write("1")
        output.finish()
    assert path.is_symlink()
    assert (tmp_path / "data" / "real.jsonl").read_text() == "1\n"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no directory .*/none"):
        Output(tmp_path / "none" / "out.jsonl")
    with pytest.raises(InputError, match="not a regular file"):
        Output(Path("/dev/null"), overwrite=True)
    with pytest.raises(InputError, match="not a regular file"):
        Output(tmp_path, overwrite=True)
