"""vLLM's schedulers, made to count, agree with what is counted outside of them."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from benchmarks.harness.engine_counts import CountsFile, EngineCounts
from benchmarks.harness.model import SHAPES, model_directory
from benchmarks.harness.testbed import SCHEDULER

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.core.sched.scheduler import Scheduler

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore"),  # what importing vLLM and torch warns of is not ours
]

BLOCK_TOKENS, NUM_BLOCKS = 32, 17
NUM_REQUESTS, PROMPT_TOKENS, ANSWER_TOKENS = 6, 100, 60
"""30 blocks for all, of which 16 are there; and prompts longer than what is left of a step."""


@pytest.mark.parametrize("is_async", [False, True])
def test_both_kinds_of_scheduler_count(is_async: bool, cache_home: Path, tmp_path: Path) -> None:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    file = CountsFile(tmp_path / "counts")
    with file.named_in_environment():
        scheduler = make_scheduler(is_async)
    assert isinstance(scheduler, AsyncScheduler) == is_async
    assert file.read() == EngineCounts()
    outside = run_all(scheduler, num_ahead=1 if is_async else 0)
    counts = file.read()
    assert counts is not None
    assert counts.preemptions == outside.preemptions > 0
    first_tokens = NUM_REQUESTS + counts.preemptions
    assert counts.decode_tokens == NUM_REQUESTS * ANSWER_TOKENS - first_tokens
    assert counts.prefill_tokens > NUM_REQUESTS * PROMPT_TOKENS
    num_tokens = counts.prefill_tokens + counts.decode_tokens
    assert replace(counts, prefill_tokens=num_tokens, decode_tokens=0) == outside


def make_scheduler(is_async: bool) -> Scheduler:
    """The counting scheduler of an engine with few blocks, without the engine."""
    import torch
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    config = AsyncEngineArgs(
        model=str(model_directory(SHAPES["small"])),
        dtype="float32",
        load_format="dummy",
        enforce_eager=True,
        max_model_len=512,
        block_size=BLOCK_TOKENS,
        max_num_seqs=8,
        max_num_batched_tokens=256,
        enable_chunked_prefill=True,
        scheduler_cls=SCHEDULER,
        kv_cache_memory_bytes=1 << 26,
    ).create_engine_config()
    config.scheduler_config.async_scheduling = is_async  # on a CPU vLLM turns it off
    config.cache_config.num_gpu_blocks = NUM_BLOCKS
    spec = FullAttentionSpec(
        block_size=BLOCK_TOKENS, num_kv_heads=1, head_size=1, dtype=torch.float32
    )
    made: Any = config.scheduler_config.get_scheduler_cls()
    scheduler: Scheduler = made(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(NUM_BLOCKS, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=Mock(),
        block_size=BLOCK_TOKENS,
        hash_block_size=BLOCK_TOKENS,
    )
    return scheduler


def run_all(scheduler: Scheduler, num_ahead: int) -> EngineCounts:
    """Answer all requests; what was counted outside, with all tokens as those of prefill.

    Args:
        scheduler: With its requests yet to be added.
        num_ahead: Steps that are scheduled before the tokens of an earlier one are known.
    """
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request

    init_none_hash(sha256)
    sampling = SamplingParams(max_tokens=ANSWER_TOKENS, ignore_eos=True)
    requests = [
        Request(
            f"request-{number}",
            [PROMPT_TOKENS * number + token for token in range(PROMPT_TOKENS)],
            sampling,
            None,
            block_hasher=get_request_block_hasher(BLOCK_TOKENS, sha256),
        )
        for number in range(NUM_REQUESTS)
    ]
    for request in requests:
        scheduler.add_request(request)
    outside = EngineCounts()
    scheduled: deque[tuple[SchedulerOutput, list[list[int]]]] = deque()
    while scheduler.has_requests():
        output = scheduler.schedule()
        names = output.num_scheduled_tokens
        if names:
            tokens = output.total_num_scheduled_tokens
            outside += EngineCounts(steps=1, requests=len(names), prefill_tokens=tokens)
        sampled = [[] if scheduler.requests[name].is_prefill_chunk else [7] for name in names]
        scheduled.append((output, sampled))
        if len(scheduled) > num_ahead or not names:
            output, sampled = scheduled.popleft()
            order = {name: index for index, name in enumerate(output.num_scheduled_tokens)}
            scheduler.update_from_output(output, ModelRunnerOutput(list(order), order, sampled))
    assert [request.num_output_tokens for request in requests] == [ANSWER_TOKENS] * NUM_REQUESTS
    return outside + EngineCounts(preemptions=sum(each.num_preemptions for each in requests))
