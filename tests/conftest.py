"""One real engine for all tests that need one."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from helium_agents.engines.vllm import VLLM


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
    """vLLM, started, on the embedded model in float32: exact whatever else is computed.

    Tests that use it are marked `engine` and run in the session's event loop::

        pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]
    """
    engine = VLLM()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what importing vLLM and torch warns of is not ours
        await engine.start()
    yield engine
    await engine.close()
