"""Every block of code on a page runs as it stands, from the page's top to its end.

Python is executed, and its `main` awaited, with a scripted engine if it wants one; a block that
begins with the name of a file is written to that file, for what comes below. Commands run in the
same folder. What a block of text right below shows is what was printed. A block that cannot run has
a comment above it which says why: its commands, options, targets and extras must be there all the
same.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from page_blocks import PAGES, ROOT, Block, blocks_of
from page_commands import check_exists, commands_of, differences, run_commands

from helium_agents import ToolCall
from helium_agents.cli import execute
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply

TESTED_BY = {
    "README.md": "tests/test_readme.py",
    "benchmarks/README.md": "tests/benchmarks/test_bench_readme.py",
    "docs/images.md": "tests/authoring/test_images.py",
    "docs/notebooks.md": "tests/docs/test_notebooks_page.py",
    "docs/servers.md": "tests/engines/openai/test_openai_docs.py",
    "docs/telemetry.md": "tests/telemetry/test_telemetry_page.py",
}
"""Whose Python needs more than a scripted engine; their commands are checked here."""

NEEDS = {"docs/langgraph.md": "langgraph", "docs/traces.md": "vllm"}
LANGUAGES = {"python", "sh", "text", "console", "{toctree}", ""}
FILE_NAME = re.compile(r"# (\w+\.py)\n")


def asks_for_a_search(request: Request) -> str | ScriptedReply:
    if request.messages[-1].role == "tool":
        return request.messages[-1].content
    word = request.messages[-1].content.split()[-1].strip("?")
    return ScriptedReply(tool_calls=[ToolCall("search", {"query": word})])


SCRIPTS: dict[str, Any] = {
    "docs/langgraph.md": lambda request: request.messages[-1].content[-1],
    "docs/tools.md": asks_for_a_search,
}
PRINTED = {
    "docs/langgraph.md": ["a\nb\na\n", "noting a\n5 a ['B']\na\n"],
    "docs/tools.md": ["nothing about salt\nnothing about tin\n"],
    "docs/engines.md": ["HELLO\n"],
}
"""What the first blocks of a page print, where the page does not show it."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with the examples; what the page's files import is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execute, "VLLM", lambda model, **settings: ScriptedEngine())
    (tmp_path / "agents_examples").symlink_to(ROOT / "agents_examples")
    (tmp_path / "debate.trace").symlink_to(ROOT / "docs" / "debate.trace")
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if name not in modules and str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(NEEDS.get(page, "pytest"))
    expected = iter(PRINTED.get(page, ()))
    blocks = blocks_of(page)
    for block, below in zip_longest(blocks, blocks[1:]):
        assert block and block.language in LANGUAGES, f"{page}: {block}"
        if block.not_run:
            for words in commands_of(block.text) if block.language == "sh" else ():
                check_exists(words)
        elif block.language == "sh":
            check_shown(page, run_commands(block.text), below)
        elif block.language == "python" and page not in TESTED_BY:
            run_python(page, block)
            printed = capsys.readouterr().out
            assert printed == next(expected, printed), f"{page}:{block.line}"
            check_shown(page, printed, below)
    assert not list(expected), f"{page}: has fewer blocks"


def run_python(page: str, block: Block) -> None:
    source = "\n" * block.line + block.text  # so that tracebacks name the page's lines
    code = compile(source, str(ROOT / page), "exec", dont_inherit=True)
    if (found := FILE_NAME.match(block.text)) is not None:
        Path(found[1]).write_text(block.text, "utf-8")
        if not found[1].startswith("test_"):
            return
    names: dict[str, Any] = {"__name__": "page"}
    exec(code, names)
    for name, value in names.items():
        if name == "main" or name.startswith("test_"):
            wants = "engine" in inspect.signature(value).parameters
            asyncio.run(value(ScriptedEngine(SCRIPTS.get(page))) if wants else value())


def check_shown(page: str, printed: str, below: Block | None) -> None:
    if below is None or below.language != "text":
        return
    if below.recorded:
        assert counts(below.text) == counts(printed), f"{page}:{below.line}; it prints\n{printed}"
    else:
        changed = differences(printed, below.text)
        assert not changed, f"{page}:{below.line}: {', '.join(changed)}; it prints\n{printed}"


def counts(text: str) -> list[str]:
    """How many calls were asked, computed, saved: equal whatever the model answers."""
    return re.findall(r"[\d,]+ model calls?|computed +nothing|[\d,]+ entries", text)


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "docs" / "index.md").read_text("utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        place = f"\n{path.stem}\n"
        assert path.stem == "index" or place in contents, f"name {path.stem} in docs/index.md"


def test_every_package_is_where_it_is_said_to_be() -> None:
    page = (ROOT / "docs" / "contributing.md").read_text("utf-8")
    found = {path.parent.name for path in (ROOT / "helium_agents").glob("*/__init__.py")}
    missing = {name for name in found if f"\n  {name}/" not in page}
    assert not missing, f"docs/contributing.md says what is where, but not of {missing}"


def test_other_tests_are_there() -> None:
    for page, test in TESTED_BY.items():
        assert Path(page).name in (ROOT / test).read_text(), test
