"""The block of docs/servers.md runs as it stands, on a scripted server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from scripted_server import MODEL, ScriptedServer, reply_to

from helium_agents import OpenAIServer

PAGE = (Path(__file__).parents[3] / "docs" / "servers.md").read_text("utf-8")


async def test_the_example(
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for written, here in (("http://localhost:8000/v1", server.url), ("Qwen/Qwen3-8B", MODEL)):
        assert written in block
        block = block.replace(written, here)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/servers.md", "exec"), names)
    for num_computed in (1, 0):
        await names["main"]()
        expected = f"{reply_to('Name a river.')}\ncalls: 2, computed: {num_computed}\n"
        assert capsys.readouterr().out == expected


def test_the_table_has_every_argument() -> None:
    (table,) = re.findall(r"## What it takes\n(.*?)\n## ", PAGE, re.DOTALL)
    code = OpenAIServer.__init__.__code__
    arguments = code.co_varnames[1 : 1 + code.co_argcount - 1 + code.co_kwonlyargcount]
    for name in set(arguments) - {"name"}:
        assert re.search(rf"`{name}=?`", table), name
