"""The workloads are as large as they should be, in tokens."""

from __future__ import annotations

import asyncio
from statistics import mean

import pytest
from tokenizers import Tokenizer

from benchmarks.harness.calls import CallGraph, call_graph
from benchmarks.harness.model import SHAPES
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.workload import Inputs
from benchmarks.workloads import debate, grid, workloads
from helium_agents.engines.random_model import random_model_dir

BLOCK_TOKENS = 32
LONGEST_TOKENS = 3000
WORKING_SET_TOKENS = 48_000
LARGER = {"trading": 4, "tools-open": 2}
"""Some need more rows to be under pressure."""


@pytest.fixture(scope="module")
def tokenizer(cache_home: object) -> Tokenizer:
    return Tokenizer.from_file(str(random_model_dir() / "tokenizer.json"))


def num_tokens(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text).ids)


@pytest.fixture(scope="module")
def oracle(cache_home: object) -> Oracle:
    return Oracle(SHAPES["small"])


@pytest.mark.parametrize("name", workloads())
def test_a_full_batch_has_the_working_set(name: str, oracle: Oracle) -> None:
    workload = workloads()[name]
    rows = workload.rows(Inputs(workload.num_items, day=workload.num_warm_days + 1))
    graphs = [asyncio.run(call_graph(workload.workflow, row)) for row in rows]
    blocks: set[int] = set()
    for call in oracle.run(graphs).calls:
        token_ids = (*call.prompt_token_ids, *call.output_token_ids)
        assert len(token_ids) <= LONGEST_TOKENS
        chain = 0
        for end in range(BLOCK_TOKENS, len(token_ids) + 1, BLOCK_TOKENS):
            chain = hash((chain, token_ids[end - BLOCK_TOKENS : end]))
            blocks.add(chain)
    assert len(blocks) * BLOCK_TOKENS == pytest.approx(
        LARGER.get(name, 1) * WORKING_SET_TOKENS, rel=0.15
    )


def test_debaters_have_long_prompts_and_short_contexts(tokenizer: Tokenizer) -> None:
    for text in debate.AGENTS.values():
        assert num_tokens(tokenizer, text) == pytest.approx(512, rel=0.05)
    rows = workloads()["debate"].rows(Inputs(num_items=32))
    assert mean(num_tokens(tokenizer, row.context) for row in rows) == pytest.approx(256, rel=0.05)


def test_first_and_second_are_equally_long(tokenizer: Tokenizer) -> None:
    assert num_tokens(tokenizer, " first ") == num_tokens(tokenizer, " second ")


@pytest.mark.parametrize("name", grid.SIZES)
def test_the_grid_has_the_published_sizes(name: str, tokenizer: Tokenizer) -> None:
    size = grid.SIZES[name]
    for family in ("mapred", "debate"):
        workload = workloads()[f"grid-{family}-{name}"]
        rows = workload.rows(Inputs(num_items=8))
        for published, texts in (
            (size.context, [row.context for row in rows]),
            (size.question, [row.question for row in rows]),
            (size.system, systems(asyncio.run(call_graph(workload.workflow, rows[0])))),
        ):
            tokens = mean(num_tokens(tokenizer, text) for text in texts)
            assert tokens * grid.SCALE == pytest.approx(published, rel=0.1)
        graph = asyncio.run(call_graph(workload.workflow, rows[0]))
        assert {call.max_tokens * grid.SCALE for call in graph.calls} == {size.answer}


def systems(graph: CallGraph) -> list[str]:
    return [message.content for call in graph.calls for message in call.conversation([""] * 99)[:1]]
