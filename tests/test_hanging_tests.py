"""A test that hangs is ended, and says which calls wait for what."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

_HANGS = """
import asyncio
from helium_agents import Session, llm, operator, user
from helium_agents.engines.scripted import ScriptedEngine

@operator
async def ask():
    return await llm(user("are you there?"))

async def test_hangs():
    async with Session(ScriptedEngine(lambda _: asyncio.Event().wait())):
        await ask()

async def test_comes_after():
    assert True
"""


def test_a_hanging_test_is_ended_and_says_what_waits(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_hangs.py").write_text(_HANGS)
    options = ["-q", "--most-seconds", "2", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "calls that wait or are computed: 1" in ended.stderr, ended.stdout + ended.stderr
    waiting = r"llm\(user\('are you there\?'\)\): \d\.\d s, waits for its engine"
    assert re.search(waiting, ended.stderr), ended.stderr
    assert "TookTooLong" in ended.stdout
