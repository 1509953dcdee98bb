"""Rehearses a workflow on placeholder answers: what it asks for, without a model."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from helium_agents.batch.workflow import Workflow
from helium_agents.cli.failure import explain_failure
from helium_agents.cli.options import echo_warning
from helium_agents.cli.signals import run_until_stopped
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import InputError, ItemError
from helium_agents.graph.plan import LogicalPlan
from helium_agents.runtime.session import Session
from helium_agents.telemetry.events import CallSettled, Event, Observer
from helium_agents.telemetry.progress import Progress

_MAX_ROW_S = 10.0
"""A loop that waits for the right answer may never end on placeholders."""

_MAX_ROWS_AT_ONCE = 16
"""So many share the time that each of them has."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a workflow asked for.

    Args:
        calls_by_row: Model calls that each row made.
        num_computed: Those of all rows that are distinct, so that a model must compute them.
        failures: What went wrong, by the row's index; placeholders may be to blame.
        logical: The plan as the workflow made it, as text.
        optimized: The plan after the rules, as text.
        plan: The plan as the workflow made it.
    """

    calls_by_row: tuple[int, ...]
    num_computed: int
    failures: dict[int, str]
    logical: str
    optimized: str
    plan: LogicalPlan

    @property
    def num_calls(self) -> int:
        """Model calls of all rows."""
        return sum(self.calls_by_row)

    def as_dict(self) -> dict[str, Any]:
        """What every report for programs has of it."""
        return {
            "calls": self.num_calls,
            "distinct_calls": self.num_computed,
            "failed_rows": {str(index): message for index, message in self.failures.items()},
        }

    def echo_failures(self) -> None:
        """Warn on stderr of rows that failed."""
        for index, message in self.failures.items():
            text = f"row {index + 1:,} failed on placeholder answers, which may be to blame"
            echo_warning(f"{text}: {message}")


def rehearse(workflow: Workflow, rows: Sequence[Any], *, shows_progress: bool = False) -> Rehearsal:
    """Run a workflow on placeholder answers, some rows at a time.

    Its own code runs, with what that does to the world; no engine does, and nothing is kept.

    Raises:
        Stopped: A signal came.
    """
    calls_by_item: Counter[int | None] = Counter()

    def count(event: Event) -> None:
        if isinstance(event, CallSettled) and event.kind == "llm":
            calls_by_item[event.item] += 1

    async def limited(row: Any) -> None:
        limit = asyncio.timeout(_MAX_ROW_S)
        try:
            async with limit:
                await workflow.fn(row)
        except TimeoutError as error:
            if limit.expired():
                raise InputError(f"it did not end within {_MAX_ROW_S:.0f} s") from error
            raise

    async def rehearsed() -> Rehearsal:
        failures: dict[int, str] = {}
        async with session:
            results = session.map(limited, rows, on_error="collect", read_ahead=_MAX_ROWS_AT_ONCE)
            async with aclosing(results.indexed()) as indexed:
                async for index, result in indexed:
                    if isinstance(result, ItemError):
                        failures[index] = explain_failure(result, workflow)
            return Rehearsal(
                tuple(calls_by_item[index] for index in range(len(rows))),
                session.summary.num_computed,
                failures,
                session.explain(),
                session.explain(optimized=True),
                session.plan(),
            )

    limited.__name__ = workflow.name  # by which the session tells what it waits for
    with ExitStack() as stack:
        observers: list[Observer] = [count]
        if shows_progress:
            observers.append(stack.enter_context(Progress(workflow.name, sys.stderr)))
        engine = ScriptedEngine(keep_requests=False)
        session = Session(engine, record=True, observers=observers)
        return run_until_stopped(rehearsed(), waiting=lambda: session.waiting())
