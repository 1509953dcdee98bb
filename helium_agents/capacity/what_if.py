"""What if: a traced run, simulated as it was and with something changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from helium_agents.capacity.coarse import simulate_coarsely
from helium_agents.capacity.exact import simulate_exactly
from helium_agents.capacity.machine import Change, machines_of
from helium_agents.capacity.outcome import Outcome, measured
from helium_agents.capacity.replayed import Replay
from helium_agents.errors import EngineStartError, TraceError
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.park import Park
from helium_agents.optimizer.policy import ALL_OPEN, AtMost, Policy
from helium_agents.optimizer.schedule import EverythingOpen, FewOpen, Schedule
from helium_agents.trace.run import TracedRun

Simulator = Literal["exact", "coarse"]

SCHEDULES: Mapping[str, type[Adaptive | EverythingOpen | Park]] = {
    "adaptive": Adaptive,
    "everything-open": EverythingOpen,
    "park": Park,
}
"""By name."""


@dataclass(frozen=True)
class Alternative:
    """What is asked.

    Args:
        name: What a person calls it.
        change: What the machine has otherwise.
        schedule: A name of `SCHEDULES`, or most open items; `None` for what the run had.
    """

    name: str
    change: Change = field(default_factory=Change)
    schedule: str | int | None = None


@dataclass(frozen=True)
class Found:
    """An alternative, and what came of it.

    Args:
        alternative: What was asked.
        outcome: What came of it; `None` where it cannot be.
        why_not: Why it cannot be.
    """

    alternative: Alternative
    outcome: Outcome | None
    why_not: str = ""


@dataclass(frozen=True)
class Answer:
    """All that was asked.

    Args:
        simulator: How it was simulated.
        measured: The run as it was; its unfinished items count for nothing.
        same: The run simulated with the settings that it had: how far off the simulation is. What
            the trace does not say is taken from the first alternative that does.
        found: The alternatives.
        note: What the reader should know of the simulation; empty for nothing.
    """

    simulator: Simulator
    measured: Outcome
    same: Outcome
    found: tuple[Found, ...]
    note: str = ""


def ask(
    run: TracedRun, alternatives: Sequence[Alternative], simulator: Simulator | None = None
) -> Answer:
    """How long a traced run would take.

    Args:
        run: The run.
        alternatives: What is to be otherwise, each by itself.
        simulator: How to simulate; by default exactly, where the installed vLLM allows that.

    Raises:
        TraceError: The trace has not what is needed for that.
        EngineStartError: It cannot be simulated exactly, as was asked.
    """
    replay = Replay(run)
    same, note = Alternative("as it was", _unsaid(run, alternatives), _schedule_of(run)), ""
    try:
        outcome = _simulate(replay, run, same, simulator or "exact")
    except EngineStartError as error:
        if simulator is not None:
            raise
        simulator, note = "coarse", f"{error}; so the simulation is a coarse one"
        outcome = _simulate(replay, run, same, simulator)
    chosen = simulator or "exact"
    if chosen == "coarse":
        note = f"{note}. It knows no pauses between calls and no arrivals.".removeprefix(". ")
    found = tuple(_found(replay, run, each, same, chosen) for each in alternatives)
    return Answer(chosen, measured(run), outcome, found, note)


def _unsaid(run: TracedRun, alternatives: Sequence[Alternative]) -> Change:
    """What a trace does not say of its engines, as the first alternative has it that does."""
    engines = [run.engines[model] for model in {call.model for call in run.computed}]
    found = Change()
    for change in (each.change for each in alternatives):
        if found.cost is None and any(engine.cost is None for engine in engines):
            found |= Change(cost=change.cost)
        if found.kv_tokens is None and any(engine.capacity is None for engine in engines):
            found |= Change(kv_tokens=change.kv_tokens)
    return found


def _found(
    replay: Replay,
    run: TracedRun,
    asked: Alternative,
    same: Alternative,
    simulator: Simulator,
) -> Found:
    whole = replace(
        asked, change=same.change | asked.change, schedule=asked.schedule or same.schedule
    )
    try:
        return Found(asked, _simulate(replay, run, whole, simulator))
    except TraceError as error:
        return Found(asked, None, str(error))


def _simulate(replay: Replay, run: TracedRun, asked: Alternative, simulator: Simulator) -> Outcome:
    machines = machines_of(run, asked.change)
    if simulator == "exact":
        return simulate_exactly(replay, machines, _schedule(asked.schedule))
    if len(machines) > 1:
        raise TraceError(
            f"the run asked {len(machines)} models, which the coarse simulation does not know: "
            "simulate it exactly"
        )
    (machine,) = machines.values()
    return simulate_coarsely(replay, machine, _policy(asked.schedule, run))


def _schedule(name: str | int | None) -> Schedule:
    if isinstance(name, int):
        return FewOpen(name)
    return SCHEDULES[name or "adaptive"]()


def _policy(name: str | int | None, run: TracedRun) -> Policy | None:
    if isinstance(name, int):
        return AtMost(name)
    if name == "park":
        raise TraceError("the coarse simulation does not know --schedule park")
    rows_pause = any(each.get("why_not_compared") == "rows pause" for each in run.choices)
    return ALL_OPEN if name == "everything-open" or rows_pause else None


def _schedule_of(run: TracedRun) -> str | int:
    """The schedule that a run had; that of a user's own class is not known."""
    name = run.parts[-1].schedule if run.parts else ""
    limit = re.fullmatch(r"FewOpen\((\d+)\)", name)
    if limit is not None:
        return int(limit[1])
    return {schedule.__name__: key for key, schedule in SCHEDULES.items()}.get(name, "adaptive")
