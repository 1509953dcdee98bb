"""The pages' Python blocks run as they stand, their commands exist, and links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helium_agents import Session, ToolCall
from helium_agents.cli import main
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
REFERENCE = (ROOT / "docs" / "reference.md").read_text("utf-8")
LANGGRAPH = (ROOT / "docs" / "langgraph.md").read_text("utf-8")
TOOLS = (ROOT / "docs" / "tools.md").read_text("utf-8")
COMMANDS = re.compile(r"^helium run (?:.*\\\n)*.*$", re.MULTILINE)


def blocks_of(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


EXAMPLE, GRAPH = blocks_of(README)
SESSION, TEST, ENGINE, BATCH = blocks_of(REFERENCE)


def executed(source: str) -> dict[str, Any]:
    """The names that a block defines."""
    path = "README.md"
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(source, path, "exec"), names)
    return names


async def test_the_example(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = re.search(r"# of (\d+) model calls, (\d+) are computed; the next time, none", EXAMPLE)
    assert found is not None
    for num_computed in (found[2], "0"):
        await executed(EXAMPLE)["main"]()
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) == 4
        assert printed[0] == printed[2] != printed[1]
        assert f"'plain_calls': {found[1]}, " in printed[3]
        assert f"'computed': {num_computed}, " in printed[3]


async def test_the_graph() -> None:
    pytest.importorskip("langgraph", reason="LangGraph comes with requirements/bench.txt")
    engine = ScriptedEngine()
    async with Session(engine) as session:
        found = await executed(GRAPH)["verdicts"](session, ["a", "b", "a"])
    assert found[0] == found[2] != found[1]
    assert engine.num_requests == 2


async def test_the_planned_graph(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("langgraph", reason="pip install 'helium_agents[langgraph]'")
    engine = ScriptedEngine(lambda request: request.messages[-1].content[-1])
    (block,) = blocks_of(LANGGRAPH)
    await executed(block)["main"](engine)
    assert capsys.readouterr().out == "a\nb\na\n"
    assert engine.num_requests == 2


def test_the_session_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    executed(SESSION)


async def test_the_test() -> None:
    await executed(TEST)["test_greeting"]()


async def test_the_tools(capsys: pytest.CaptureFixture[str]) -> None:
    def script(request: Request) -> str | ScriptedReply:
        if request.messages[-1].role == "tool":
            return request.messages[-1].content
        word = request.messages[-1].content.split()[-1].strip("?")
        return ScriptedReply(tool_calls=[ToolCall("search", {"query": word})])

    (block,) = blocks_of(TOOLS)
    await executed(block)["main"](ScriptedEngine(script))
    assert capsys.readouterr().out == "nothing about salt\nnothing about tin\n"


async def test_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    await executed(ENGINE)["main"]()
    assert capsys.readouterr().out == "HELLO\n"


async def test_the_batch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"question": "a"}\n{"question": "b"}\n')
    main = executed(BATCH)["main"]
    for num_computed in (2, 0):
        await main(ScriptedEngine())
        assert capsys.readouterr().out == f"2 rows, {num_computed} calls computed\n"
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("command", COMMANDS.findall(README + REFERENCE))
def test_the_commands_are_valid(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command.replace("\\\n", " "))[1:]
    result = CliRunner().invoke(main, [*arguments, "--dry-run", "--overwrite"])
    assert result.exit_code == 0, result.output


PAGES = [*(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")), "README.md"]


@pytest.mark.parametrize("page", [*PAGES, "benchmarks/RESULTS.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
        assert "://" in target or (path.parent / target).exists(), target
