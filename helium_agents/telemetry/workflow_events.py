"""Events of workflows: maps and runs, their items, and how they are planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from helium_agents.telemetry.call_events import OperatorCall


@dataclass(frozen=True, slots=True)
class WorkflowBegan:
    """A `map` that is inside no item of another, or a `session.run`, began.

    Args:
        number: Its number in the session; no call has the same.
        name: What a person calls its function.
        num_rows: How many rows it has; `None` where the input has no length, and for a run.
        body: The operator call in whose body it is; `None` outside of any.
        is_run: Whether it is a run, whose calls are made where it is told.
    """

    number: int
    name: str
    num_rows: int | None = None
    body: OperatorCall | None = None
    is_run: bool = False


@dataclass(frozen=True, slots=True)
class WorkflowEnded:
    """Nothing of a workflow is open any more; see `WorkflowBegan`.

    Args:
        number: Its number.
        error: What the run failed with, or what the reading of rows did; `None` if nothing.
    """

    number: int
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class MapOpened:
    """A `map` began.

    Args:
        num_items: How many rows it has; `None` where the input has no length.
        is_nested: Whether it is inside an item of another.
        num_done: How many of them an earlier part of the run has answered.
    """

    num_items: int | None
    is_nested: bool
    num_done: int = 0


@dataclass(frozen=True, slots=True)
class ItemOpened:
    """An item of a `map` began.

    Args:
        index: Its position in the input of its map, from 0.
        is_nested: Whether its map is inside an item of another.
        item: The top-level item that it is or belongs to, by how many were read before it.
        workflow: The number of its map; 0 where that is inside an item of another.
    """

    index: int
    is_nested: bool
    item: int = 0
    workflow: int = 0


@dataclass(frozen=True, slots=True)
class ItemClosed:
    """An item of a `map` ended, and what it remembers is durable; see `ItemOpened`.

    Args:
        index: Its position in the input of its map, from 0.
        is_nested: Whether its map is inside an item of another.
        error: What it failed with, or `None`.
        item: The top-level item that it is or belongs to.
        ended_s: When its function had ended, by the event loop's clock; `None` if it was cancelled.
    """

    index: int
    is_nested: bool
    error: BaseException | None
    item: int = 0
    ended_s: float | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A frontier was planned: how many nodes it had before and after the rules, and how long."""

    num_nodes: int
    num_computed: int
    seconds: float


ScheduleSource = Literal["declared calls", "profile", "declared calls and profile"]
"""Whence it is known what rows will ask: they declare it; rows before them asked so; their calls
are declared, and how long answers are is known from earlier ones."""


@dataclass(frozen=True, slots=True)
class ScheduleChosen:
    """Which rows are open at once is chosen anew.

    Args:
        policy: What is chosen, in words.
        gain: By how much that is predicted to be faster than having all open.
        predicted_s: How long the rows that were looked at are predicted to take; `None` where
            nothing was compared.
        seconds: What choosing took.
        compared: Of each policy that was looked at, in words: how long the rows are predicted to
            take under it, and its gain.
        source: Whence it is known what rows will ask.
        expected: What is expected of each call site under the policy, by the names of
            `optimizer.expected.ExpectedSite`.
        why_not_compared: Why no policies were looked at, a word of
            `optimizer.choose_policy.NotCompared`; `None` where some were.
    """

    policy: str
    gain: float
    predicted_s: float | None
    seconds: float
    compared: tuple[tuple[str, float, float], ...] = ()
    source: ScheduleSource = "declared calls"
    expected: tuple[Mapping[str, Any], ...] = ()
    why_not_compared: str | None = None


@dataclass(frozen=True, slots=True)
class ProfileMisfit:
    """What earlier runs have learned of a workflow does not fit this one, which is planned anew.

    Args:
        workflow: What a person calls it.
        reason: What does not fit.
    """

    workflow: str
    reason: str
