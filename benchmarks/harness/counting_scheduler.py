"""The scheduler of our engines, which also counts what it schedules.

vLLM's own statistics are not exact: those of prefill end with a request's first preemption, a step
that only begins a prompt shows in no histogram, and the batch is a gauge that somebody must look at
in time.

vLLM imports this in its own processes; name it as ``scheduler_cls=SCHEDULER``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from benchmarks.harness.engine_counts import VARIABLE, CountsWriter, EngineCounts
from helium_agents.engines.hinted_scheduler import adjusted

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.core.sched.scheduler import Scheduler


def counting_scheduler(vllm_config: VllmConfig, **arguments: Any) -> Scheduler:
    """The scheduler of our engines, made to count.

    Args:
        vllm_config: The engine's.
        **arguments: Further arguments of vLLM's schedulers.

    Raises:
        KeyError: The environment does not say where to count.
        FileExistsError: Another engine counts there.
    """
    writer = CountsWriter(os.environ[VARIABLE])
    scheduler = adjusted(vllm_config)

    class CountingScheduler(scheduler):  # type: ignore[misc,valid-type]  # vLLM is not analysed
        def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
            # A request that is not among these is new, or comes back after a preemption.
            decoding = {each.request_id for each in self.running if not each.is_prefill_chunk}
            output = super().schedule(*args, **kwargs)
            writer.add(_counts_of(output, decoding))
            return output

    return CountingScheduler(vllm_config=vllm_config, **arguments)


def _counts_of(output: SchedulerOutput, decoding: set[str]) -> EngineCounts:
    """What one call scheduled, of which these requests decoded if they got anything."""
    scheduled = output.num_scheduled_tokens
    decode_tokens = sum(num for request_id, num in scheduled.items() if request_id in decoding)
    return EngineCounts(
        steps=1 if scheduled else 0,
        requests=len(scheduled),
        prefill_tokens=output.total_num_scheduled_tokens - decode_tokens,
        decode_tokens=decode_tokens,
        preemptions=len(output.preempted_req_ids or ()),
    )
