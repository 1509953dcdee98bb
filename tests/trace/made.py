"""Traced runs made by hand."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from helium_agents.optimizer.step_cost import STEP_COSTS
from helium_agents.trace.run import (
    TracedAnswer,
    TracedBody,
    TracedCall,
    TracedEngine,
    TracedItem,
    TracedPart,
    TracedRun,
)

CAPACITY = {
    "kv_tokens": 2048,
    "block_tokens": 32,
    "max_model_tokens": 4096,
    "max_requests": 16,
    "max_batched_tokens": 2048,
}


def call(
    number: int,
    asked_s: float,
    end_s: float,
    *,
    body: int = 0,
    item: int | None = 0,
    source: str = "engine",
    kind: str = "llm",
    leader: int | None = None,
    inputs: tuple[int, ...] = (),
    prompt: Sequence[int] = (),
    output: Sequence[int] = (1, 2, 3),
    max_tokens: int = 8,
    cached_tokens: int = 0,
    finish: str = "stop",
) -> TracedCall:
    """A call; a model call has an answer unless it was remembered."""
    answer = None
    if kind == "llm" and source in ("engine", "merged", "joined"):
        ids = array("I", prompt or [1000 + number] * 4)
        answer = TracedAnswer(ids, (array("I", output),), max_tokens, (finish,))
    return TracedCall(
        number=number,
        kind=kind,  # type: ignore[arg-type]
        label=kind,
        source=source,  # type: ignore[arg-type]
        body=body,
        leader=number if leader is None else leader,
        item=item,
        model="tiny" if kind == "llm" else "",
        inputs=inputs,
        calls_below=0,
        error=None,
        asked_s=asked_s,
        sent_s=asked_s,
        first_token_s=None,
        end_s=end_s,
        num_attempts=1,
        prompt_tokens=0 if answer is None else len(answer.prompt),
        cached_tokens=cached_tokens,
        output_tokens=len(output),
        answer=answer,
    )


def made_run(
    *calls: TracedCall, bodies: Sequence[tuple[int, str, int]] = (), schedule: str = "Adaptive"
) -> TracedRun:
    """A run of these calls on one engine; its items are open from 0 to their last call."""
    run = TracedRun(parts=[TracedPart("run", 0.0, 0.0, "0", True, schedule)])
    run.calls = sorted(calls, key=lambda call: call.end_s)
    run.bodies = {number: TracedBody(number, name, body) for number, name, body in bodies}
    for each in run.calls:
        if each.item is not None:
            item = run.items.setdefault(each.item, TracedItem(each.item, each.item, 0.0))
            item.closed_s = item.ended_s = each.end_s
    run.engines["tiny"] = TracedEngine("tiny", 1, CAPACITY, STEP_COSTS["cpu-medium"].as_dict())
    return run
