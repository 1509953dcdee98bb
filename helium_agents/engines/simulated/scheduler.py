"""vLLM's own scheduler without a model: what it would compute in each step, and when.

The scheduler of the installed vLLM decides everything that a real engine's does: which requests run
together, how prompts are cut into chunks, what is preempted, and which blocks of the prefix cache
are kept. Only the tokens are told to it in place of a model.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from helium_agents.engines.engine import Capacity
from helium_agents.engines.hinted_scheduler import with_hints
from helium_agents.engines.reporting_scheduler import load_of, scheduled_step
from helium_agents.errors import EngineStartError
from helium_agents.optimizer.step_cost import Step
from helium_agents.optimizer.step_window import EngineLoad

TESTED_VLLM = "0.32"
"""The vLLM whose scheduler this is known to drive."""


@dataclass(frozen=True)
class Progress:
    """What came of a step.

    Args:
        step: What was computed.
        first: Requests that got their first token, with the prompt tokens that were cached.
        finished: Requests whose answers are complete.
        given: Requests that got a token.
    """

    step: Step
    first: dict[str, int]
    finished: tuple[str, ...]
    given: tuple[str, ...]


@dataclass
class _Open:
    """A request that the scheduler has."""

    request: Any
    output_token_ids: Sequence[int]
    num_given: int = 0
    cached_tokens: int | None = None


class SimulatedScheduler:
    """Drives vLLM's scheduler step by step.

    Args:
        held: What the engine holds.
        model_dir: Any model directory with a configuration: vLLM wants one, and nothing of it
            counts here.

    Raises:
        EngineStartError: vLLM is not installed, or is one that this does not fit.
    """

    def __init__(self, held: Capacity, model_dir: str) -> None:
        self._open: dict[str, _Open] = {}
        try:
            with _quietly():
                self._scheduler, self._new_request = _vllm_scheduler(held, model_dir)
        except (ImportError, AttributeError, TypeError) as error:
            raise EngineStartError(
                f"the scheduler of the installed vLLM cannot be driven without a model ({error}): "
                f"this was tested with vllm {TESTED_VLLM}"
            ) from error

    def __len__(self) -> int:
        return len(self._open)

    def add(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        output_token_ids: Sequence[int],
        *,
        arrival_s: float,
        priority: int = 0,
        hints: Mapping[str, Any] | None = None,
    ) -> None:
        """Give it a request, with the tokens that the model would answer; at least one."""
        request = self._new_request(
            request_id,
            list(prompt_token_ids),
            len(output_token_ids),
            arrival_s,
            priority,
            None if hints is None else dict(hints),
        )
        self._open[request_id] = _Open(request, output_token_ids)
        self._scheduler.add_request(request)

    def abort(self, request_id: str) -> None:
        """Take a request away."""
        from vllm.v1.request import RequestStatus

        if self._open.pop(request_id, None) is not None:
            self._scheduler.finish_requests(request_id, RequestStatus.FINISHED_ABORTED)

    def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes; nothing may be open."""
        self._scheduler.reset_prefix_cache()

    def begin_step(self) -> tuple[Step, Any] | None:
        """Decide on the next step: what is computed, and a token for `end_step`."""
        output = self._scheduler.schedule()
        scheduled = output.num_scheduled_tokens
        if not scheduled:
            return None
        for request_id, num_tokens in scheduled.items():
            entry = self._open[request_id]
            if entry.cached_tokens is None:  # its first step
                entry.cached_tokens = entry.request.num_computed_tokens - num_tokens
        return scheduled_step(scheduled, self._scheduler.requests), output

    @staticmethod
    def begun_in(output: Any) -> list[str]:
        """The requests whose first step it is that `begin_step` gave."""
        return [new.req_id for new in output.scheduled_new_reqs]

    @property
    def load(self) -> EngineLoad:
        """What it has, once a step has begun."""
        return load_of(self._scheduler)

    def end_step(self, step: Step, output: Any) -> Progress:
        """Tell it the tokens of a step that has been computed."""
        from vllm.v1.outputs import ModelRunnerOutput

        request_ids = [each for each in output.num_scheduled_tokens if each in self._open]
        sampled: list[list[int]] = []
        first: dict[str, int] = {}
        for request_id in request_ids:
            entry = self._open[request_id]
            if entry.request.num_computed_tokens < entry.request.num_tokens:
                sampled.append([])  # a chunk of its prompt
                continue
            if entry.num_given == 0:
                first[request_id] = entry.cached_tokens or 0
            sampled.append([entry.output_token_ids[entry.num_given]])
            entry.num_given += 1
        runner_output = ModelRunnerOutput(
            req_ids=request_ids,
            req_id_to_index={each: index for index, each in enumerate(request_ids)},
            sampled_token_ids=sampled,
        )
        self._scheduler.update_from_output(output, runner_output)
        finished = tuple(each for each in request_ids if each not in self._scheduler.requests)
        for request_id in finished:
            del self._open[request_id]
        given = tuple(each for each, ids in zip(request_ids, sampled, strict=True) if ids)
        return Progress(step, first, finished, given)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what vLLM and torch say while they are imported.

    The environment is as before afterwards: that a user sets this variable has a meaning.
    """
    is_set = "VLLM_LOGGING_LEVEL" in os.environ
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if not is_set:
            del os.environ["VLLM_LOGGING_LEVEL"]


def _vllm_scheduler(held: Capacity, model_dir: str) -> tuple[Any, Any]:
    """VLLM's scheduler, and what makes its requests."""
    import torch
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.request import Request

    num_blocks = held.kv_tokens // held.block_tokens + 1
    config = AsyncEngineArgs(
        model=model_dir,
        dtype="float32",
        max_model_len=held.max_model_tokens,
        hf_overrides={"max_position_embeddings": held.max_model_tokens},
        max_num_seqs=held.max_requests,
        max_num_batched_tokens=held.max_batched_tokens,
        block_size=held.block_tokens,
        enable_prefix_caching=True,
        enable_chunked_prefill=True,
        scheduling_policy="priority",
        enforce_eager=True,
        num_gpu_blocks_override=num_blocks,
        kv_cache_memory_bytes=1 << 26,
        load_format="dummy",
    ).create_engine_config()
    config.cache_config.num_gpu_blocks = num_blocks
    spec = FullAttentionSpec(
        block_size=held.block_tokens, num_kv_heads=1, head_size=64, dtype=torch.float32
    )
    scheduler = with_hints(Scheduler)(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(num_blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=SimpleNamespace(
            should_advance=lambda *_: False, accept_tokens=lambda *_, **__: True
        ),
        block_size=held.block_tokens,
        hash_block_size=held.block_tokens,
    )
    hash_function = get_hash_fn_by_name(config.cache_config.prefix_caching_hash_algo)
    init_none_hash(hash_function)
    hasher = get_request_block_hasher(held.block_tokens, hash_function)

    def new_request(
        request_id: str,
        prompt: list[int],
        num_output: int,
        arrival_s: float,
        priority: int,
        hints: dict[str, Any] | None,
    ) -> Any:
        sampling = SamplingParams(max_tokens=num_output, ignore_eos=True, extra_args=hints)
        return Request(
            request_id,
            prompt,
            sampling,
            None,
            arrival_time=arrival_s,
            priority=priority,
            block_hasher=hasher,
        )

    return scheduler, new_request
