"""`FILE:WORKFLOW`: what it finds, under which name, and what it says where it finds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from helium_agents.authoring.operator import Operator
from helium_agents.cli.loading import load_workflow
from helium_agents.errors import InputError


def test_file_is_imported_by_its_stem(folder: Path) -> None:
    workflow = load_workflow("flow.py:answer")
    assert isinstance(workflow.fn, Operator)
    assert workflow.fn.body.identity == "flow:answer"
    assert workflow.name == "answer"
    assert workflow.file == folder / "flow.py"
    assert workflow.parameter == "row: Row"
    assert workflow.row_type is not None
    assert workflow.row_type.validate_json('{"question": "?"}').question == "?"


def test_file_of_a_package_is_imported_by_its_dotted_name(folder: Path) -> None:
    inner = folder / "project" / "outer_package" / "inner"
    inner.mkdir(parents=True)
    for directory in (inner, inner.parent):
        (directory / "__init__.py").touch()
    (inner / "names.py").write_text("NAME = 'x'\n")
    (inner / "work.py").write_text(
        "from outer_package.inner.names import NAME\nasync def go(row): return NAME\n"
    )
    workflow = load_workflow("project/outer_package/inner/work.py:go")
    assert workflow.fn.__module__ == "outer_package.inner.work"
    assert workflow.root == folder / "project"
    assert workflow.row_type is None


def test_modules_beside_the_file_can_be_imported(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "beside_it.py").write_text("NAME = 'x'\n")
    (folder / "elsewhere" / "with_neighbour.py").write_text(
        "import beside_it\nasync def go(row): return beside_it.NAME\n"
    )
    assert load_workflow("elsewhere/with_neighbour.py:go").name == "go"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("flow.py", "'flow.py' names no workflow: write FILE:WORKFLOW"),
        (":answer", "names no workflow"),
        ("flwo.py:answer", "there is no file flwo.py: did you mean flow.py?"),
        ("flow.py:answr", "has no workflow 'answr': did you mean answer?"),
        ("flow.py:zzz", "has no workflow 'zzz'; it defines answer, not_a_number, plain,"),
        ("flow.py:not_async", "not_async is not async: make it `async def not_async(row)`"),
        ("flow.py:NUMBER", "NUMBER is a value of type int, not a workflow"),
        ("flow.py:two", "two(first, second) cannot be called with one row"),
        ("flow.py:strange", "no row can be made for strange(row: memoryview): annotate"),
        ("flow.py:unknown", "cannot be read: name 'Nowhere' is not defined. Import it"),
        ("no_such_module:answer", "there is no file no_such_module"),
    ],
)
def test_what_cannot_be_found_is_explained(folder: Path, target: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        load_workflow(target)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def broken(:\n", "broken.py:1 is not valid Python: "),
        ("import no_such_package\n", "imports 'no_such_package', which is not installed"),
        ("x = 1\n1 / 0\n", "ZeroDivisionError: division by zero (at broken.py:2)"),
        ("from helium_agents import operator\noperator(lambda row: row)\n", " (at broken.py:2)"),
        ("raise SystemExit(3)\n", "ends the program while it is imported: put what runs it under"),
    ],
)
def test_what_cannot_be_imported_is_explained(folder: Path, source: str, message: str) -> None:
    (folder / "broken.py").write_text(source)
    with pytest.raises(InputError) as raised:
        load_workflow("broken.py:answer")
    assert message in str(raised.value)


def test_name_of_another_module_is_refused(folder: Path) -> None:
    (folder / "json.py").write_text("async def go(row): ...\n")
    with pytest.raises(InputError, match=r"json.py has the name of another module .*: rename it"):
        load_workflow("json.py:go")
