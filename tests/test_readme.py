"""The README's Python blocks run as they stand, and its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helium_agents import VLLM
from helium_agents.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
EXAMPLE, SESSION, TEST = BLOCKS


def executed(source: str) -> dict[str, Any]:
    """The names that a block defines."""
    path = "README.md"
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(source, path, "exec"), names)
    return names


@pytest.mark.engine
@pytest.mark.asyncio(loop_scope="session")
async def test_the_example(
    engine: VLLM,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("helium_agents.engines.vllm.VLLM", lambda _: engine)
    names = executed(EXAMPLE)
    await names["main"]()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4
    assert printed[0] == printed[2] != printed[1]
    found = re.search(r"# of (\d+) model calls, (\d+) are computed", EXAMPLE)
    assert found is not None
    assert f"'plain_calls': {found[1]}, " in printed[3]
    assert f"'computed': {found[2]}, " in printed[3]


def test_the_session_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    executed(SESSION)


async def test_the_test() -> None:
    await executed(TEST)["test_greeting"]()


@pytest.mark.parametrize("command", re.findall(r"^helium run (?:.*\\\n)*.*$", README, re.MULTILINE))
def test_the_commands_are_valid(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    arguments = shlex.split(command.replace("\\\n", " "))[1:]
    result = CliRunner().invoke(main, [*arguments, "--dry-run", "--overwrite"])
    assert result.exit_code == 0, result.output
