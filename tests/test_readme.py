"""The README's Python does what its comments say, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from helium_agents import Session
from helium_agents.engines.scripted import ScriptedEngine

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLE, GRAPH = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def executed(source: str) -> dict[str, Any]:
    """The names that a block defines."""
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(source, "README.md", "exec"), names)
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


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target
