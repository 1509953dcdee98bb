"""Traces a workflow on placeholder answers: what it asks for, without a model."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from helium_agents.cli.failure import explain_failure
from helium_agents.cli.loading import Workflow
from helium_agents.cli.signals import run_until_stopped
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import InputError, ItemError, RefCancelled
from helium_agents.runtime.session import Session
from helium_agents.telemetry.events import CallSettled, Event, Observer

_MAX_ROW_S = 10.0
"""A loop that waits for the right answer may never end on placeholders."""

_MAX_ROWS_AT_ONCE = 16
"""So many share the time that each of them has."""


@dataclass(frozen=True, slots=True)
class Traced:
    """What a workflow asked for.

    Args:
        calls_by_row: Model calls that each row made.
        num_computed: Those of all rows that are distinct, so that a model must compute them.
        failures: What went wrong, by the row's index; placeholders may be to blame.
        logical: The plan as the workflow made it, as text.
        optimized: The plan after the rules, as text.
    """

    calls_by_row: tuple[int, ...]
    num_computed: int
    failures: dict[int, str]
    logical: str
    optimized: str

    @property
    def num_calls(self) -> int:
        """Model calls of all rows."""
        return sum(self.calls_by_row)


def trace(workflow: Workflow, rows: Sequence[Any], observers: Sequence[Observer] = ()) -> Traced:
    """Run a workflow on placeholder answers, some rows at a time.

    Its own code runs, with what that does to the world; no engine does, and nothing is kept.

    Raises:
        Stopped: A signal came.
    """
    calls = _CallsByRow()
    session = Session(
        ScriptedEngine(keep_requests=False), record=True, observers=(calls, *observers)
    )
    return run_until_stopped(
        _trace(session, calls, workflow, rows), waiting=lambda: session.waiting()
    )


class _CallsByRow(Counter[int | None]):
    """Counts the model calls of each row that have come to an end; an observer."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, CallSettled) and event.kind == "llm":
            self[event.item] += not isinstance(event.error, RefCancelled)


async def _trace(
    session: Session, calls: _CallsByRow, workflow: Workflow, rows: Sequence[Any]
) -> Traced:
    failures: dict[int, str] = {}
    async with session:
        results = session.map(
            _limited(workflow), rows, on_error="collect", read_ahead=_MAX_ROWS_AT_ONCE
        )
        async with aclosing(results), aclosing(results.indexed()) as indexed:
            async for index, result in indexed:
                if isinstance(result, ItemError):
                    assert result.__cause__ is not None
                    failures[index] = explain_failure(result.__cause__, workflow)
        return Traced(
            tuple(calls[index] for index in range(len(rows))),
            session.summary.num_computed,
            failures,
            session.explain(),
            session.explain(optimized=True),
        )


def _limited(workflow: Workflow) -> Callable[[Any], Awaitable[None]]:
    """The workflow, which is ended where it takes too long."""

    async def run(row: Any) -> None:
        limit = asyncio.timeout(_MAX_ROW_S)
        try:
            async with limit:
                await workflow.fn(row)
        except TimeoutError as error:
            if limit.expired():
                raise InputError(f"it did not end within {_MAX_ROW_S:.0f} s") from error
            raise

    run.__name__ = workflow.name  # by which the session tells what it waits for
    return run
