"""What an engine's steps really take, told by its scheduler: a file in memory with a few sums.

vLLM's own statistics know no step: they are sums over requests, and are off. So our scheduler,
which runs in vLLM's process, measures each step and writes the sums that a correction needs, which
are as large after a million steps as after one. Steps may overlap, where vLLM schedules one while
another is computed: then one takes from the end of the one before to its own.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any

from helium_agents.optimizer.step_cost import Step
from helium_agents.optimizer.step_sums import NUM_SUMS, StepSums

STEPS_VARIABLE = "HELIUM_AGENTS_ENGINE_STEPS"
"""Environment variable that tells the scheduler where to write."""

_FORM = struct.Struct(
    f"{NUM_SUMS + 1}d"
)  # the number of steps comes again: else it is half written
_WRITE_EACH_S = 0.1


class StepReport:
    """A file in memory that a process of ours can open by path as long as we live."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("helium-engine-steps")

    @property
    def path(self) -> str:
        """Where our own processes find it."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def read(self) -> StepSums | None:
        """What was written last; `None` where nothing was, or half of it just now."""
        if self._descriptor < 0:
            return None
        content = os.pread(self._descriptor, _FORM.size, 0)
        if len(content) < _FORM.size:
            return None
        *values, again = _FORM.unpack(content)
        return StepSums(values) if values[0] == again else None

    def close(self) -> None:
        """Drop it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def scheduled_step(num_tokens: Mapping[str, int], requests: Mapping[str, Any]) -> Step:
    """What a step computes that vLLM has just scheduled.

    Args:
        num_tokens: By request, as in vLLM's `SchedulerOutput.num_scheduled_tokens`.
        requests: Those that the scheduler has.
    """
    decodes = context_tokens = prefill_tokens = 0
    positions = 0.0
    for request_id, number in num_tokens.items():
        request = requests[request_id]
        start = request.num_computed_tokens - number
        if number == 1 and start >= request.num_prompt_tokens:
            decodes += 1
            context_tokens += start
        else:
            prefill_tokens += number
            positions += number * (start + number / 2)
    return Step(decodes, context_tokens, prefill_tokens, positions)


def with_report(scheduler: type[Any]) -> type[Any]:
    """A class of vLLM's schedulers as one that reports its steps, where somebody wants to know."""
    path = os.environ.get(STEPS_VARIABLE)
    if path is None or not hasattr(scheduler, "update_from_output"):
        return scheduler
    descriptor = -1
    with suppress(OSError):  # the parent is gone, or /proc is not there: nobody is told
        descriptor = os.open(path, os.O_WRONLY)
    if descriptor < 0:
        return scheduler

    class ReportingScheduler(scheduler):  # type: ignore[misc]  # vLLM is not analysed
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._helium_sums = StepSums()
            self._helium_steps: dict[int, tuple[float, Step]] = {}  # under way
            self._helium_end_s = self._helium_written_s = 0.0

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            begin_s = perf_counter()
            output = super().schedule(*args, **kwargs)
            if output.num_scheduled_tokens:
                step = scheduled_step(output.num_scheduled_tokens, self.requests)
                self._helium_steps[id(output)] = begin_s, step
            return output

        def update_from_output(self, output: Any, *args: Any, **kwargs: Any) -> Any:
            begun = self._helium_steps.pop(id(output), None)
            if begun is not None:
                begin_s, step = begun
                end_s = perf_counter()
                self._helium_sums.add(step, end_s - max(begin_s, self._helium_end_s))
                self._helium_end_s = end_s
                if end_s - self._helium_written_s > _WRITE_EACH_S:
                    self._helium_written_s = end_s
                    values = self._helium_sums.values
                    os.pwrite(descriptor, _FORM.pack(*values, values[0]), 0)
            return super().update_from_output(output, *args, **kwargs)

    return ReportingScheduler
