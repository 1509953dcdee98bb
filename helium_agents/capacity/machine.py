"""A machine: the engines of a model, what they hold and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from helium_agents.engines.engine import Capacity
from helium_agents.errors import TraceError
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.trace.run import TracedEngine, TracedRun

_UNKNOWN_CAPACITY = {"block_tokens": 16, "max_requests": 256}
"""Of an engine behind a server, which tells nothing: what vLLM has by default."""


@dataclass(frozen=True)
class Machine:
    """Equal engines of one model.

    Args:
        num_engines: How many.
        held: What each of them holds.
        cost: What a step takes of each.
    """

    num_engines: int
    held: Capacity
    cost: StepCost


@dataclass(frozen=True)
class Change:
    """What is to be otherwise than in the trace.

    Args:
        kv_tokens: Tokens of KV cache of each engine.
        kv_factor: So many times the KV cache of the trace.
        num_engines: How many engines each model has.
        cost: What a step takes.
    """

    kv_tokens: int | None = None
    kv_factor: float = 1.0
    num_engines: int | None = None
    cost: StepCost | None = None

    def __or__(self, other: Change) -> Change:
        """Both; where they differ, the other one."""
        has_kv = other.kv_tokens is not None or other.kv_factor != 1.0
        return Change(
            kv_tokens=other.kv_tokens if has_kv else self.kv_tokens,
            kv_factor=other.kv_factor if has_kv else self.kv_factor,
            num_engines=self.num_engines if other.num_engines is None else other.num_engines,
            cost=self.cost if other.cost is None else other.cost,
        )


def machines_of(run: TracedRun, change: Change) -> dict[str, Machine]:
    """The machines of a trace, changed, by model.

    Raises:
        TraceError: The trace does not say what one holds or costs, and the change does not either.
    """
    models = sorted({call.model for call in run.computed})
    if not models:
        raise TraceError("no engine answered anything in this run: there is nothing to simulate")
    return {model: _machine(run.engines[model], change) for model in models}


def _machine(engine: TracedEngine, change: Change) -> Machine:
    number = engine.num_engines
    unknown = {**_UNKNOWN_CAPACITY, "max_model_tokens": change.kv_tokens}
    held: dict[str, Any] = dict(unknown if engine.capacity is None else engine.capacity)
    if engine.capacity is None and change.kv_tokens is None:
        raise TraceError(
            f"the trace does not say what the engine of {engine.model!r} holds: give --kv-tokens N"
        )
    if engine.cost is None and change.cost is None:
        raise TraceError(
            f"the trace does not say what a step of {engine.model!r} takes: give --model-cost, "
            "the name of one (h100-8b) or a file"
        )
    if engine.capacity is not None:  # what they hold together
        held["kv_tokens"] //= number
        held["max_requests"] //= number
    kv_tokens = change.kv_tokens or int(held["kv_tokens"] * change.kv_factor)
    block_tokens = held["block_tokens"]
    held["kv_tokens"] = max(kv_tokens // block_tokens, 1) * block_tokens
    cost = change.cost or StepCost.from_dict(engine.cost or {})
    return Machine(change.num_engines or number, Capacity(**held), cost)
