"""Fixtures of the tests of what a user writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from helium_agents import Session
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine


@pytest.fixture
async def quiet_loop() -> AsyncIterator[None]:
    """The test leaves no task behind, and no error that only the event loop has seen."""
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    yield
    await asyncio.sleep(0)
    assert problems == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def engine() -> ScriptedEngine:
    """Echoes the last message."""

    def echo(request: Request) -> str:
        return request.messages[-1].content

    return ScriptedEngine(echo)


@pytest.fixture
async def session(engine: ScriptedEngine) -> AsyncIterator[Session]:
    async with Session(engine) as session:
        yield session
