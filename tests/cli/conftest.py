"""A folder to work in, and `helium` with a scripted engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from jsonl import Helium, write_rows

from helium_agents.cli import execute, main
from helium_agents.engines.scripted import ScriptedEngine

FLOW = """
from pydantic import BaseModel

from helium_agents import llm, operator, user


class Row(BaseModel):
    question: str
    number: int = 0


@operator
async def answer(row: Row):
    print("the workflow prints")
    reply = await llm(user(row.question), max_tokens=8)
    if row.number == 13:
        return check(row)
    return {"question": row.question, "answer": reply.text}


def check(row):
    raise ValueError("thirteen is unlucky")


@operator
async def not_a_number(row: Row):
    return float("nan")


async def plain(row):
    return row


def not_async(row):
    return row


@operator
async def two(first, second):
    return first


@operator
async def strange(row: memoryview):
    return None


@operator
async def unknown(row: "Nowhere"):
    return None


NUMBER = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with `flow.py` and `rows.jsonl` of 20 rows; imports are undone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flow.py").write_text(FLOW)
    write_rows(tmp_path / "rows.jsonl", 20)
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if name not in modules and str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    """What every `helium` of the test runs on."""
    engine = ScriptedEngine()
    monkeypatch.setattr(execute, "VLLM", lambda model, **settings: engine)
    return engine


@pytest.fixture
def helium(folder: Path, engine: ScriptedEngine) -> Helium:
    """`helium ARGUMENTS` in the folder; arguments are split at spaces."""

    def call(arguments: str, expect: int = 0, **options: Any) -> Result:
        result = CliRunner().invoke(main, arguments.split(), **options)
        assert result.exit_code == expect, result.output
        return result

    return call
