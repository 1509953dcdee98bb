"""A trace is read on as it grows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helium_agents import Session, llm, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import TraceError
from helium_agents.trace import TraceFile, read_trace
from helium_agents.trace.follow import FollowedTrace


async def write(path: Path, text: str, **options: bool) -> None:
    async with Session(ScriptedEngine(), trace=TraceFile(path, **options)):
        await llm(user(text), max_tokens=4)


async def test_what_is_new_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    await write(path, "one")
    followed = FollowedTrace(path)
    assert len(followed.read().calls) == 1
    assert followed.read() is followed.read() and followed.version == 1
    await write(path, "two", resume=True)
    assert followed.read() == read_trace(path)
    assert len(followed.read().calls) == 2 and followed.version == 2


async def test_a_trace_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    await write(path, "one")
    await write(path, "two", resume=True)
    followed = FollowedTrace(path)
    assert len(followed.read().calls) == 2
    await write(path, "three", overwrite=True)
    assert followed.read() == read_trace(path)


async def test_a_run_that_goes_on_is_known(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    async with Session(ScriptedEngine(), trace=path):
        assert FollowedTrace(path).is_written
    assert not FollowedTrace(path).is_written


async def test_what_is_not_there_yet_to_its_end_is_read_later(tmp_path: Path) -> None:
    path, whole = tmp_path / "run.trace", tmp_path / "whole.trace"
    await write(whole, "one")
    data = whole.read_bytes()
    path.write_bytes(data[:-5])
    followed = FollowedTrace(path)
    assert followed.read().is_cut and not followed.read().calls
    path.write_bytes(data)
    assert len(followed.read().calls) == 1 and not followed.read().is_cut


def test_what_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        FollowedTrace(tmp_path / "run.trace").read()
    os.mkdir(tmp_path / "run.trace")
    with pytest.raises(TraceError, match="cannot be read"):
        FollowedTrace(tmp_path / "run.trace").read()
