"""The benchmarks' engine in this process counts what vLLM does, and answers as the oracle says."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.harness.case import make_batch, make_case
from benchmarks.harness.measure import measure
from benchmarks.harness.model import SHAPES
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.settings import EngineSettings
from benchmarks.harness.system import run_graph
from benchmarks.harness.testbed import Testbed
from benchmarks.harness.workload import Inputs
from benchmarks.systems import systems
from benchmarks.workloads import workloads

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]

SHAPE = SHAPES["small"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pressed(cache_home: Path) -> AsyncIterator[Testbed]:
    """The engine, started, with a cache that holds a quarter of the prompts."""
    async with Testbed(EngineSettings("pressure", 0.25, SHAPE)) as bed:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what importing vLLM and torch warns of is not ours
            await bed.start(server=False)
        yield bed


async def test_counts_of_an_engine_that_preempts(pressed: Testbed) -> None:
    settings = pressed.settings
    case = make_case(
        await make_batch(workloads()["reflect"], Inputs(15)), "published", Oracle(settings.shape)
    )
    run = await measure(systems()["raw"], case, pressed)
    assert run.counts is not None
    assert run.counts.preemptions > 0
    assert max(sample.num_running for sample in run.samples) > 1
    assert all(0 <= sample.kv_usage <= 1 for sample in run.samples)
    sent = len(run.requests)
    output_tokens = sum(each.output_tokens for each in run.requests)
    to_prefill = sum(each.prompt_tokens - each.cached_tokens for each in run.requests)
    # A preempted answer's next token comes from prefilling again, as the first one does.
    assert run.counts.prefill_tokens > to_prefill
    least = output_tokens - sent - run.counts.preemptions
    assert least <= run.counts.decode_tokens < output_tokens - sent
    assert run.counts.requests >= output_tokens
    assert 1 < run.counts.mean_batch <= settings.max_requests
    assert pressed.counts(server=True) is None


async def test_a_real_engine_answers_as_the_oracle_says(pressed: Testbed) -> None:
    """Under chunked prefill, with a cache that holds a fraction of the prompts, and preemption."""
    batch = await make_batch(workloads()["debate"], Inputs(6))
    known = Oracle(SHAPE).run(batch.graphs)
    log = pressed.begin(server=False)
    results = await asyncio.gather(
        *(run_graph(graph, pressed.engine.ask) for graph in batch.graphs)
    )
    assert results == known.results
    asked = sorted((r.prompt_tokens, r.output_tokens) for r in log.requests)
    assert asked == sorted(
        (len(call.prompt_token_ids), len(call.output_token_ids)) for call in known.calls
    )
