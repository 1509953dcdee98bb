"""Makes a scheduler of vLLM tell what its steps really take, and when it began with requests.

vLLM's own statistics know no step: they are sums over requests, and are off. So our scheduler,
which runs in vLLM's process, measures each step, which costs it a few microseconds. Steps may
overlap, where vLLM schedules one while another is computed: then one takes from the end of the one
before to its own. All times are by the clock that event loops have, in every process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from helium_agents.engines.step_report import STEPS_VARIABLE, ReportWriter, RequestTimes
from helium_agents.optimizer.step_cost import Step
from helium_agents.optimizer.step_sums import StepSums
from helium_agents.optimizer.step_window import EngineLoad, window_of

REQUEST_NUMBER: Final = "helium_request"
"""What a request's number is called in its ``extra_args``."""

_NEEDED = ("schedule", "update_from_output", "get_request_counts")
"""What a scheduler must have to be measured."""

_WRITE_EACH_S = 0.1


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


def load_of(scheduler: Any) -> EngineLoad:
    """What one of vLLM's schedulers has once it has scheduled a step."""
    running, waiting = scheduler.get_request_counts()
    return EngineLoad(running, waiting, scheduler.kv_cache_manager.usage)


def with_report(scheduler: type[Any]) -> type[Any]:
    """A class of vLLM's schedulers as one that reports its steps, where somebody wants to know."""
    path = os.environ.get(STEPS_VARIABLE)
    if path is None or not all(hasattr(scheduler, name) for name in _NEEDED):
        return scheduler
    try:
        report = ReportWriter(path)
    except OSError:  # the parent is gone, or /proc is not there: nobody is told
        return scheduler

    class ReportingScheduler(scheduler):  # type: ignore[misc]  # vLLM is not analysed
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._helium_sums = StepSums()
            self._helium_steps: dict[int, tuple[float, Step, EngineLoad]] = {}  # under way
            self._helium_reading = _Reading(report)
            self._helium_end_s = self._helium_written_s = 0.0

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            begin_s = monotonic()
            output = super().schedule(*args, **kwargs)
            if output.num_scheduled_tokens:
                step = scheduled_step(output.num_scheduled_tokens, self.requests)
                self._helium_steps[id(output)] = begin_s, step, load_of(self)
                for new in output.scheduled_new_reqs:
                    self._helium_reading.begin(self.requests[new.req_id], begin_s)
            return output

        def update_from_output(self, output: Any, *args: Any, **kwargs: Any) -> Any:
            begun = self._helium_steps.pop(id(output), None)
            end_s = monotonic()
            if begun is not None:
                begin_s, step, load = begun
                begin_s = max(begin_s, self._helium_end_s)
                self._helium_sums.add(step, end_s - begin_s)
                report.add_window(window_of(step, load, begin_s, end_s))
                self._helium_end_s = end_s
                if end_s - self._helium_written_s > _WRITE_EACH_S:
                    self._helium_written_s = end_s
                    report.write_sums(self._helium_sums)
            found = super().update_from_output(output, *args, **kwargs)
            self._helium_reading.end(end_s)  # before anybody hears of an answer
            return found

    return ReportingScheduler


class _Reading:
    """The requests whose prompts are being read, by number."""

    def __init__(self, report: ReportWriter) -> None:
        self._report = report
        self._begun: dict[int, tuple[Any, float]] = {}

    def begin(self, request: Any, begin_s: float) -> None:
        sampling = request.sampling_params
        number = (getattr(sampling, "extra_args", None) or {}).get(REQUEST_NUMBER)
        if isinstance(number, int) and number not in self._begun:  # the first of several answers
            self._begun[number] = request, begin_s

    def end(self, end_s: float) -> None:
        """A step has ended: some may have their first token, and others may be gone."""
        for number, (request, begin_s) in [*self._begun.items()]:
            if request.num_output_tokens:
                self._report.write_times(number, RequestTimes(begin_s, end_s))
            if request.num_output_tokens or request.is_finished():
                del self._begun[number]
