"""Caches of LangGraph's nodes and LangChain's models on a store of ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

import pytest

pytest.importorskip("langchain_tests", reason="pip install -r requirements/langgraph.txt")

from langchain_core.caches import BaseCache
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite
from langgraph.cache.base import BaseCache as BaseNodeCache
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy

from helium_agents import LmdbStore
from helium_agents.integrations.langgraph import HeliumCache, HeliumModelCache
from helium_agents.memo.memory import MemoryStore

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*beta.*")


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Iterator[BaseCache]:
        with closing(LmdbStore(tmp_path / "memo")) as store:
            yield HeliumModelCache(store)


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    def cache(self) -> BaseCache:
        return HeliumModelCache(MemoryStore())


class State(TypedDict, total=False):
    text: str


ran: list[str] = []


def shout(state: State) -> State:
    ran.append(state["text"])
    return {"text": state["text"].upper()}


def graph(cache: BaseNodeCache[Any], ttl: int | None = None) -> Any:
    built = StateGraph(State).add_node("shout", shout, cache_policy=CachePolicy(ttl=ttl))
    return built.add_edge(START, "shout").compile(cache=cache)


async def test_a_cached_node_runs_once_for_all_programs(tmp_path: Path) -> None:
    ran.clear()
    for _ in range(2):
        with closing(LmdbStore(tmp_path / "memo")) as store:
            app = graph(HeliumCache(store))
            for text in ("a", "b", "a"):
                assert await app.ainvoke({"text": text}) == {"text": text.upper()}
                assert app.invoke({"text": text}) == {"text": text.upper()}
    assert ran == ["a", "b"]


def test_what_was_cleared_runs_again() -> None:
    ran.clear()
    cache = HeliumCache(MemoryStore())
    app = graph(cache)
    app.invoke({"text": "a"})
    app.clear_cache(["shout"])
    app.invoke({"text": "a"})
    cache.clear()
    app.invoke({"text": "a"})
    app.invoke({"text": "a"})
    assert ran == ["a"] * 3


def test_clearing_one_namespace_leaves_the_others() -> None:
    cache = HeliumCache(MemoryStore())
    first, second = (("x",), "k"), (("y",), "k")
    cache.set({first: (1, None), second: (2, None)})
    cache.clear([("x",)])
    assert cache.get([first, second]) == {second: 2}


def test_a_value_lasts_as_long_as_it_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, key, now = HeliumCache(MemoryStore()), (("x",), "k"), time.time()
    cache.set({key: ("v", 60)})
    monkeypatch.setattr(time, "time", lambda: now + 59)
    assert cache.get([key]) == {key: "v"}
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert cache.get([key]) == {}


def test_nodes_without_an_identity_are_warned_of() -> None:
    cache = HeliumCache(MemoryStore())
    with pytest.warns(RuntimeWarning, match="node 'shout'"):
        cache.set({(("writes", "__dynamic__", "shout"), "k"): (1, None)})
