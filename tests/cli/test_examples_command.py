"""`helium examples` writes all of the examples or nothing, and what it writes works there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonl import Helium, read_lines
from scripted_helium import scripted_helium

from helium_agents.cli import examples_command, main
from helium_agents.cli.examples_command import EXAMPLES, example_files

ROOT = Path(__file__).resolve().parents[2]

TRIED = re.compile(r"\nTry one of them:\n(?:  cd (?P<folder>.+)\n)?  (?P<run>helium run .*)", re.S)


def everything_in(folder: Path) -> dict[str, bytes | str | None]:
    """Contents of files, places that symbolic links point to, and folders."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def test_it_writes_the_modules_and_their_data_and_says_so(helium: Helium) -> None:
    text = helium("examples new/mine").stdout
    assert text.startswith("Wrote 12 files to new/mine:\n")
    written = {path for path in Path("new/mine").rglob("*") if path.is_file()}
    assert {f"  {path.relative_to('new/mine')}" for path in written} <= set(text.splitlines())
    assert len(written) == 12
    for path in written:
        assert path.read_bytes() == (ROOT / path.relative_to("new/mine")).read_bytes()
    assert {path.name for path in written} >= {"debate.py", "reading.py", "documents.jsonl"}


def test_what_python_and_editors_leave_is_no_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / EXAMPLES
    for name in ("__init__.py", "__pycache__/a.pyc", ".a.py.swp", "data/.cache/b", "data/b.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    monkeypatch.setattr(examples_command, "_HOLDERS", (tmp_path,))
    assert [*map(str, example_files())] == [f"{EXAMPLES}/__init__.py", f"{EXAMPLES}/data/b.jsonl"]


def test_the_command_to_try_works_there_and_runs_what_was_written(folder: Path) -> None:
    text = scripted_helium("examples", "it's mine", folder=folder, package=ROOT)
    tried = TRIED.search(text)
    assert tried is not None
    there = folder / Path(*shlex.split(tried["folder"]))
    reading = there / EXAMPLES / "reading.py"
    reading.write_text(reading.read_text() + "\nprint('what was changed here')\n")
    _, *arguments = shlex.split(tried["run"].replace("\\\n", ""))
    text = scripted_helium(*arguments, folder=there, package=ROOT)
    assert "what was changed here" in text
    assert "answer: 12 rows -> answers.jsonl" in text
    assert len(read_lines(there / "answers.jsonl")) == 12


def test_it_tells_nobody_to_go_where_they_are(helium: Helium) -> None:
    assert "  cd " not in helium("examples .").stdout
    assert "  cd other\n" in helium("examples other").stdout


def test_other_files_stay_as_they_are(helium: Helium, folder: Path) -> None:
    before = everything_in(folder)
    helium("examples .")
    assert before.items() <= everything_in(folder).items()
    assert {*os.listdir()} == {*before, EXAMPLES}


def test_it_replaces_nothing_unasked_and_names_what_is_there(helium: Helium, folder: Path) -> None:
    Path("mine", EXAMPLES).mkdir(parents=True)
    Path("mine", EXAMPLES, "rows.py").write_text("my own")
    Path("mine", EXAMPLES, "debate.py").symlink_to("nowhere")
    before = everything_in(folder)
    message = helium("examples mine", expect=1).stderr
    assert f"mine has {EXAMPLES}/debate.py, {EXAMPLES}/rows.py already: add --overwrite" in message
    assert everything_in(folder) == before


def test_overwrite_replaces_files_and_not_what_links_point_to(helium: Helium) -> None:
    helium("examples mine")
    whole = everything_in(Path("mine"))
    Path("mine", EXAMPLES, "rows.py").write_text("my own")
    Path("mine", EXAMPLES, "debate.py").unlink()
    Path("elsewhere.py").write_text("my own")
    Path("mine", EXAMPLES, "score.py").unlink()
    Path("mine", EXAMPLES, "score.py").symlink_to(Path("elsewhere.py").resolve())
    helium("examples mine --overwrite")
    assert everything_in(Path("mine")) == whole
    assert Path("elsewhere.py").read_text() == "my own"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_at_any_moment_leaves_whole_files(
    helium: Helium, folder: Path, error: BaseException
) -> None:
    helium("examples whole")
    whole = everything_in(Path("whole"))
    for number in count():
        shutil.rmtree("mine", ignore_errors=True)
        Path("mine", EXAMPLES).mkdir(parents=True)
        Path("mine", EXAMPLES, "rows.py").write_text("my own")
        left = iter(range(number))
        with pytest.MonkeyPatch.context() as patch:
            for module, name in ((os, "mkdir"), (os, "replace"), (shutil, "copyfile")):
                patch.setattr(module, name, failing_once(getattr(module, name), left, error))
            result = CliRunner().invoke(main, ["examples", "mine", "--overwrite"])
        found = everything_in(Path("mine"))
        if result.exit_code == 0:
            break
        assert result.exit_code == (1 if isinstance(error, OSError) else 130), result.output
        said = "mine: No space left on device" if isinstance(error, OSError) else "stopped"
        assert said in result.stderr
        mine = found.pop(f"{EXAMPLES}/rows.py")
        assert mine in (b"my own", whole[f"{EXAMPLES}/rows.py"])
        assert found.items() <= whole.items(), f"after {number} changes"
    assert number > 20, "ten copies and ten renames at least"
    assert found == whole


def failing_once(change: Callable[..., Any], left: Any, error: BaseException) -> Callable[..., Any]:
    """What fails when no changes are left, once: undoing goes well."""
    has_failed = False

    def changing(*arguments: Any, **options: Any) -> Any:
        nonlocal has_failed
        if next(left, None) is None and not has_failed:
            has_failed = True
            raise error
        return change(*arguments, **options)

    return changing


@pytest.mark.parametrize(
    ("make", "arguments", "named"),
    [
        (lambda: None, "flow.py/mine", "flow.py/mine"),
        (lambda: Path(EXAMPLES).touch(), ".", EXAMPLES),
        (
            lambda: Path(EXAMPLES, "rows.py").mkdir(parents=True),
            ". --overwrite",
            f"{EXAMPLES}/rows.py",
        ),
    ],
    ids=["below a file", "a file of the folder's name", "a folder of a file's name"],
)
def test_what_is_in_the_way_is_named(
    helium: Helium, folder: Path, make: Callable[[], None], arguments: str, named: str
) -> None:
    make()
    before = everything_in(folder)
    message = helium(f"examples {arguments}", expect=1).stderr
    assert message.startswith("error: cannot write the examples to ")
    assert f" ({named}). Choose another directory" in message
    assert before.items() <= everything_in(folder).items()


def test_it_guesses_no_directory(helium: Helium) -> None:
    assert "Missing argument 'DIR'" in helium("examples", expect=2).stderr
    assert "is a file" in helium("examples flow.py", expect=2).stderr


@pytest.mark.parametrize("command", ["examples mine", "demo"])
def test_an_installation_without_them_says_so(
    helium: Helium, folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(examples_command, "_HOLDERS", (folder / "here", folder / "there"))
    message = helium(command, expect=1).stderr
    assert f"is neither in {folder}/here nor {folder}/there: install" in message
    assert not Path("mine").exists()
