"""One real engine for all tests that need one, and an end for a test that hangs."""

from __future__ import annotations

import faulthandler
import gc
import signal
import sys
import warnings
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import pytest_asyncio
from hypothesis import settings

from helium_agents.engines.vllm import VLLM
from helium_agents.graph.trace import open_runners

# How long an example takes says more of the machine than of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--most-seconds", type=float, default=120, help="how long one test may take (120)"
    )


class TookTooLong(BaseException):
    """Not an `Exception`, so that no test takes it for its own."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End a test that hangs, and say what its sessions wait for."""
    most_s = item.config.getoption("--most-seconds") * (
        4 if item.get_closest_marker("engine") else 1
    )

    def end(*_: object) -> NoReturn:
        capture = item.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n{item.nodeid} took longer than {most_s} s", file=sys.stderr)
            for runner in open_runners():
                print(runner.waiting(), file=sys.stderr)
            faulthandler.dump_traceback(all_threads=True)
        raise TookTooLong

    previous = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, most_s)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the files that share the engine, its deaths at the end, then those with their own.

    So it is started once in each process, and not again after its deaths.
    """
    sharing = {item.path for item in items if "engine" in getattr(item, "fixturenames", ())}

    def rank(item: pytest.Item) -> int:
        if item.path not in sharing:
            return 2
        return int(item.path.name == "test_engine_death_real.py")

    items.sort(key=rank)


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> None:
    """Collect garbage among what a module's tests make only: a look at all of torch takes long."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache directory of this test run, so that nothing made by an older version is used."""
    path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(cache_home: Path) -> AsyncIterator[VLLM]:
    """vLLM, started, on the random model in float32: exact whatever else is computed.

    Tests that use it are marked `engine` and run in the session's event loop::

        pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]
    """
    async with started(VLLM("random")) as engine:
        yield engine


@asynccontextmanager
async def started(engine: VLLM) -> AsyncIterator[VLLM]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what importing vLLM and torch warns of is not ours
        await engine.start()
    yield engine
    await engine.close()
