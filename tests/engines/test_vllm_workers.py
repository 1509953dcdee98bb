"""An engine whose worker is a process of its own, as where several GPUs compute, or many cores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from helium_agents.engines.engine import Request
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import EngineDied
from helium_agents.graph.sampling import Sampling
from tests.conftest import started
from tests.engines.test_vllm import assert_ends_by_no_key

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def workers(cache_home: Path) -> AsyncIterator[VLLM]:
    async with started(VLLM("random", distributed_executor_backend="mp")) as engine:
        yield engine


def processes() -> tuple[psutil.Process, psutil.Process]:
    """The engine core and its worker, which was the last to start."""
    found = psutil.Process().children(recursive=True)
    workers = [each for each in found if each.name() == "VLLM::Worker"]
    worker = max(workers, key=lambda each: each.create_time())
    core = worker.parent()
    assert core is not None
    return core, worker


def request(number: int, max_tokens: int) -> Request:
    prompt = [300 + number + each % 50 for each in range(200)]
    return Request(f"workers-{number}", (), prompt, Sampling(max_tokens=max_tokens))


async def test_it_answers_as_one_that_computes_in_the_engine_core(
    engine: VLLM, workers: VLLM
) -> None:
    for number in range(4):
        asked = request(number, 32)
        mine, others = await asyncio.gather(workers.complete(asked), engine.complete(asked))
        assert mine.choices == others.choices


async def test_the_core_waits_asleep(workers: VLLM) -> None:
    def cpu_s() -> list[float]:
        return [sum(process.cpu_times()[:2]) for process in processes()]

    before = cpu_s()
    await asyncio.gather(*(workers.complete(request(number, 48)) for number in range(8)))
    core_s, worker_s = (now - then for now, then in zip(cpu_s(), before, strict=True))
    # Waiting for its worker by `sched_yield`, it would use as much as that.
    assert core_s < 0.6 * worker_s


async def test_a_terminals_keys_do_not_end_it(workers: VLLM) -> None:
    for process in processes():
        assert_ends_by_no_key(process)


async def test_a_killed_worker_is_the_end_of_what_is_open(workers: VLLM) -> None:
    core, worker = processes()
    asked = [asyncio.ensure_future(workers.complete(request(n, 4000))) for n in range(8)]
    await asyncio.sleep(0.3)
    num_open = workers.num_open_requests  # some may have ended by themselves
    assert num_open
    worker.kill()
    found = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)
    assert sum(isinstance(each, EngineDied) for each in found) == num_open
    await workers.close()
    assert not core.is_running()
