"""A workflow, as who observes sees it begin and end: a map that is in no other, or a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helium_agents.graph.node import OperatorNode
from helium_agents.runtime.calls import Calls
from helium_agents.runtime.operator_calls import operator_call
from helium_agents.telemetry.events import WorkflowBegan, WorkflowEnded


def name_of(fn: Callable[..., Any]) -> str:
    """What a person calls the function of a workflow."""
    return getattr(fn, "__name__", "a function")


class Workflow:
    """One that begins now; as a context manager it ends with its block.

    Args:
        calls: Those of its session.
        fn: What it runs.
        num_rows: How many rows a map has; `None` where that is not known, and for a run.
        caller: The operator call in whose body it is.
        is_run: Whether it is one call of `session.run`.

    Attributes:
        number: What events call it; 0 where nobody observes.
    """

    def __init__(
        self,
        calls: Calls,
        fn: Callable[..., Any],
        *,
        num_rows: int | None = None,
        caller: OperatorNode | None = None,
        is_run: bool = False,
    ) -> None:
        self.number = calls.next_number() if calls.is_watched else 0
        self._emit = calls.emit
        self._is_open = calls.is_watched
        if self._is_open:
            body = None if caller is None else operator_call(caller)
            self._emit(WorkflowBegan(self.number, name_of(fn), num_rows, body, is_run))

    def end(self, error: BaseException | None) -> None:
        """Nothing of it is open any more. Idempotent."""
        if self._is_open:
            self._is_open = False
            self._emit(WorkflowEnded(self.number, error))

    def __enter__(self) -> Workflow:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.end(error)
