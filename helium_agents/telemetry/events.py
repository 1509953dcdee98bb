"""What happens in a session, as immutable events handed to observers.

Observers are plain callables; progress bars, summaries and tracers are nothing else. They run on
the event loop and must be quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from helium_agents.telemetry.call_events import (
    BodyBegan,
    BodyEnded,
    CallMade,
    CallMissed,
    CallSettled,
    OperatorCall,
    Source,
    ToolEnded,
    Usage,
)
from helium_agents.telemetry.engine_events import (
    EngineDescribed,
    EngineLost,
    EngineStarted,
    EngineStarting,
    EngineStepped,
    ModelOpened,
    RequestAnswered,
    RequestBegan,
)
from helium_agents.telemetry.guess_events import Guessed, Speculated, WhyNoGuess
from helium_agents.telemetry.workflow_events import (
    ItemClosed,
    ItemOpened,
    MapOpened,
    Planned,
    ProfileMisfit,
    ScheduleChosen,
    ScheduleSource,
    WorkflowBegan,
    WorkflowEnded,
)

__all__ = [
    "BodyBegan",
    "BodyEnded",
    "CallMade",
    "CallMissed",
    "CallSettled",
    "EngineDescribed",
    "EngineLost",
    "EngineStarted",
    "EngineStarting",
    "EngineStepped",
    "Event",
    "Guessed",
    "ItemClosed",
    "ItemOpened",
    "MapOpened",
    "ModelOpened",
    "Observer",
    "OperatorCall",
    "Planned",
    "ProfileMisfit",
    "RequestAnswered",
    "RequestBegan",
    "ScheduleChosen",
    "ScheduleSource",
    "Source",
    "SpansLost",
    "Speculated",
    "ToolEnded",
    "Usage",
    "WhyNoGuess",
    "WorkflowBegan",
    "WorkflowEnded",
]


@dataclass(frozen=True, slots=True)
class SpansLost:
    """Spans could not be sent to where OpenTelemetry was to send them.

    Args:
        num_spans: How many.
        reason: Why, as far as is known.
    """

    num_spans: int
    reason: str


Event = (
    EngineStarting
    | EngineStarted
    | EngineLost
    | EngineDescribed
    | EngineStepped
    | ModelOpened
    | WorkflowBegan
    | WorkflowEnded
    | MapOpened
    | ItemOpened
    | ItemClosed
    | Planned
    | ScheduleChosen
    | ProfileMisfit
    | SpansLost
    | CallMissed
    | CallMade
    | BodyBegan
    | BodyEnded
    | RequestBegan
    | RequestAnswered
    | ToolEnded
    | CallSettled
    | Speculated
    | Guessed
)
Observer = Callable[[Event], None]
