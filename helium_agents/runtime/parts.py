"""The parts that a session's calls are made with: what `Assembly` opens, and `Calls` joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from helium_agents.optimizer.rules import Rule
from helium_agents.runtime.answers import Answers
from helium_agents.runtime.dispatch.dispatcher import Dispatcher
from helium_agents.runtime.executed_plan import ExecutedPlan
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.planner import Planner
from helium_agents.runtime.speculation.stakes import Stakes
from helium_agents.runtime.tasks import Tasks
from helium_agents.telemetry.events import Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts.

    Args:
        run_id: Identifies the run's draws.
        engines: The session's engines.
        dispatcher: Takes requests.
        answers: What is remembered, or `None`.
        tasks: The session's tasks.
        emit: Takes events.
        is_watched: Whether anybody but the summary sees events.
        executed: Keeps every call, or `None`.
        planner: Learns which calls are made, or `None`.
        rules: The optimizer's rules.
        shares: Whether calls may be merged, joined and remembered.
        stakes: What guesses are worth, or `None` where nothing is guessed.
    """

    run_id: str
    engines: EnginePool
    dispatcher: Dispatcher
    answers: Answers | None
    tasks: Tasks
    emit: Observer
    is_watched: bool
    executed: ExecutedPlan | None
    planner: Planner | None
    rules: Sequence[Rule]
    shares: bool
    stakes: Stakes | None
