"""A plug-in of pytest: LangGraph's caches are ours from the start, and some are made."""

from __future__ import annotations

from typing import Any

import langgraph.cache.memory
import langgraph.cache.sqlite
import pytest

from helium_agents import MemoryStore
from helium_agents.integrations.langgraph import HeliumCache

made: list[HeliumCache] = []


class OurCache(HeliumCache):
    def __init__(self, *, serde: Any = None, path: str | None = None) -> None:
        super().__init__(MemoryStore(), serde=serde)
        made.append(self)


langgraph.cache.memory.InMemoryCache = OurCache  # type: ignore[misc]
langgraph.cache.sqlite.SqliteCache = OurCache  # type: ignore[misc]


def pytest_sessionfinish(session: pytest.Session) -> None:
    print(f"\ncaches of ours: {len(made)}")
    if not made and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
