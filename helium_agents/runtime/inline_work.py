"""What runs in the tasks of those who call it, and is not planned: plain operators, and tools."""

from __future__ import annotations

import warnings
from asyncio import _get_running_loop
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType

from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Failure
from helium_agents.graph.tool_call import ToolCall
from helium_agents.graph.trace import Frame
from helium_agents.runtime.reports import Reports
from helium_agents.runtime.tasks import Tasks
from helium_agents.runtime.waiting import RunningTool


class InlineWork:
    """A session's calls of plain operators and tools, as far as they have not ended.

    Args:
        tasks: The session's tasks.
        reports: Tells who observes, or `None` where nobody does.

    Attributes:
        calls: The calls of plain operators.
        tools: The tools that run and are no operators: what waits for an operator is known without.
    """

    def __init__(self, tasks: Tasks, reports: Reports | None) -> None:
        self.calls: dict[Node, None] = {}
        self.tools: dict[RunningTool, None] = {}
        self._tasks = tasks
        self._reports = reports

    def began(self, node: Node) -> None:
        """A plain operator is about to run in its awaiter's task.

        Raises:
            SessionError: The session is not open, or is of another event loop.
        """
        tasks = self._tasks
        if not tasks.is_open or _get_running_loop() is not tasks.loop:
            tasks.check_open()
        self.calls[node] = None
        if self._reports is not None and isinstance(node, OperatorNode):
            self._reports.body_began(node)

    def ended(self, node: Node) -> None:
        """It has ended, or somebody took care of its call without awaiting it."""
        self.calls.pop(node, None)
        outcome = node.outcome
        if self._reports is not None and outcome is not None:
            self._reports.body_ended(node, outcome.error if isinstance(outcome, Failure) else None)

    @contextmanager
    def tool(self, frame: Frame, call: ToolCall, *, is_operator: bool) -> Iterator[None]:
        """While a tool runs, in a frame."""
        tool = RunningTool(frame, call, self._tasks.loop.time())
        if not is_operator:
            self.tools[tool] = None
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            self.tools.pop(tool, None)
            if self._reports is not None:
                self._reports.tool_ended(tool, failure, self._tasks.loop.time())

    @property
    def running(self) -> list[Node]:
        """Calls of plain operators whose bodies run."""
        return [node for node in self.calls if _is_running(node)]

    def warn_of_unawaited(self) -> None:
        """Warn of calls that nobody has awaited, so that they did not run, each where it was made.

        What made one may have failed before it came to that: then there is no warning.
        """
        for node in self.calls:
            if _is_running(node) or node.frame.has_failed:
                continue
            assert node.place is not None
            code, instruction = node.place
            message = f"{node.label}(...) was called here but never awaited, so it did not run"
            line = _line_of(code, instruction)
            warnings.warn_explicit(message, RuntimeWarning, code.co_filename, line)


def _is_running(node: Node) -> bool:
    return isinstance(node, OperatorNode) and node.is_running


def _line_of(code: CodeType, instruction: int) -> int:
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
