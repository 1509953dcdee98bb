"""How fast a traced run could have been at best, by what a step of its engine costs.

Two things no order of calls can beat: the tokens that must be computed once, with the engine always
full; and the longest chain of calls that wait for one another, each alone on the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from helium_agents.optimizer.step_cost import StepCost
from helium_agents.trace.dependencies import Step, steps_of
from helium_agents.trace.run import TracedCall, TracedRun

_REQUESTS = 256
"""In a step of an engine that does not tell how many."""


@dataclass(frozen=True)
class Bounds:
    """Times in seconds.

    Args:
        work_s: What its computed calls take of full engines that forget nothing.
        lost_s: What was computed again takes besides.
        chain_s: The longest chain of calls, each alone, with the pauses between them.
    """

    work_s: float
    lost_s: float
    chain_s: float


def bounds_of(run: TracedRun, cacheable: Mapping[int, int]) -> Bounds | None:
    """The bounds of a run; `None` where nobody knows what a step takes."""
    costs = {
        model: StepCost.from_dict(engine.cost)
        for model, engine in run.engines.items()
        if engine.cost is not None
    }
    if not run.computed or any(call.model not in costs for call in run.computed):
        return None
    work_s = lost_s = 0.0
    for call in run.computed:
        cost, engine = costs[call.model], run.engines[call.model]
        requests = _REQUESTS if engine.capacity is None else engine.capacity["max_requests"]
        reused = cacheable.get(call.number, call.cached_tokens)
        step_s = cost.step_s / requests + cost.decode_s
        once_s = cost.prefill_seconds(call.prompt_tokens - reused, reused)
        work_s += (once_s + call.output_tokens * step_s) / engine.num_engines
        lost_s += cost.prefill_s * (reused - call.cached_tokens) / engine.num_engines
    return Bounds(work_s, lost_s, _chain_s(steps_of(run), costs))


def _chain_s(steps: Sequence[Step], costs: Mapping[str, StepCost]) -> float:
    ends: dict[int, float] = {}
    for step in sorted(steps, key=lambda step: (step.call.asked_s, step.call.number)):
        before_s = max((ends.get(number, 0.0) for number in step.after), default=0.0)
        pause_s = step.pause_s if step.after else 0.0
        alone_s = _alone_s(step.call, costs[step.call.model]) if step.call.is_computed else 0.0
        ends[step.call.number] = before_s + pause_s + alone_s
    return max(ends.values(), default=0.0)


def _alone_s(call: TracedCall, cost: StepCost) -> float:
    """A call on an engine that has its cached tokens and nothing else to do."""
    prefill_s = cost.prefill_seconds(call.prompt_tokens - call.cached_tokens, call.cached_tokens)
    return prefill_s + call.output_tokens * (cost.step_s + cost.decode_s)
