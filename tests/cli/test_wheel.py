"""A built wheel has the examples inside the package, and `helium` finds them there."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from jsonl import read_lines
from scripted_helium import scripted_helium

from helium_agents.cli.examples_command import EXAMPLES, example_files

ROOT = Path(__file__).resolve().parents[2]


def names_in_wheel(version: str, folder: Path) -> set[str]:
    """The files of a wheel that is built and unpacked, without any installation, into a folder."""
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder / "built"), versions=[version])
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(folder / "wheel")
        return set(wheel.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("standard")
    names_in_wheel("standard", folder)
    return folder / "wheel"


def test_it_has_each_example_once(tmp_path: Path) -> None:
    names = names_in_wheel("standard", tmp_path)
    found = {name for name in names if EXAMPLES in name}
    assert found == {f"helium_agents/_examples/{path}" for path in example_files()}
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {
        "helium_agents"
    }


def test_it_has_the_page_of_the_viewer_with_its_licences(wheel: Path) -> None:
    static = wheel / "helium_agents" / "viewer" / "static"
    names = {path.name for path in static.rglob("*")}
    assert {"page.html", "page.css", "main.js", "uPlot.iife.min.js", "LICENSES.txt"} <= names


def test_an_editable_one_has_no_copy_that_would_grow_old(tmp_path: Path) -> None:
    names = names_in_wheel("editable", tmp_path)
    assert not {name for name in names if name.endswith((".py", ".jsonl"))}
    (link,) = (name for name in names if name.endswith(".pth"))
    assert (tmp_path / "wheel" / link).read_text() == str(ROOT)


def test_the_examples_can_be_had_from_it(wheel: Path, tmp_path: Path) -> None:
    scripted_helium("examples", "mine", folder=tmp_path, package=wheel)
    written = {path for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    assert written == {tmp_path / "mine" / path for path in example_files()}
    for path in written:
        assert path.read_bytes() == (ROOT / path.relative_to(tmp_path / "mine")).read_bytes()


def test_the_demo_runs_from_it(wheel: Path, tmp_path: Path) -> None:
    text = scripted_helium("demo", folder=tmp_path, package=wheel)
    assert "of 36 are exactly right" in text
    assert len(read_lines(tmp_path / ".helium" / "demo.jsonl")) == 12
