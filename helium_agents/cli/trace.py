"""Traces a workflow on placeholder answers: what it asks for, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from helium_agents.cli.failure import explain_failure
from helium_agents.cli.loading import Workflow
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import ItemError
from helium_agents.runtime.session import Session

_MAX_ROW_S = 10.0
"""A loop that waits for the right answer may never end on placeholders."""


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


async def trace(workflow: Workflow, rows: Sequence[Any]) -> Traced:
    """Run a workflow on placeholder answers, one row after another.

    Its own code runs, with what that does to the world; no engine does, and nothing is kept.
    """
    calls_by_row: list[int] = []
    failures: dict[int, str] = {}
    async with Session(ScriptedEngine(keep_requests=False), record=True) as session:
        for index, row in enumerate(rows):
            num_before = session.summary.num_calls
            failure = await _run_row(session, workflow, row)
            if failure is not None:
                failures[index] = failure
            calls_by_row.append(session.summary.num_calls - num_before)
        return Traced(
            tuple(calls_by_row),
            session.summary.num_computed,
            failures,
            session.explain(),
            session.explain(optimized=True),
        )


async def _run_row(session: Session, workflow: Workflow, row: Any) -> str | None:
    """Run one row; returns what went wrong."""
    try:
        async with asyncio.timeout(_MAX_ROW_S):
            async with session.map(workflow.fn, [row], on_error="collect") as results:
                result = await anext(results)
    except TimeoutError:
        return f"it did not end within {_MAX_ROW_S:.0f} s"
    if isinstance(result, ItemError):
        assert result.__cause__ is not None
        return explain_failure(result.__cause__, workflow)
    return None
