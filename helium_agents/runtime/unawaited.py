"""A warning for each call of a plain operator that nobody has awaited, so that it did not run."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from types import CodeType

from helium_agents.graph.node import Node


def warn_of_unawaited(nodes: Iterable[Node]) -> None:
    """Warn of calls, each with the place where it was made.

    Args:
        nodes: Those that were not awaited. What made one may have failed before it came to that:
            then there is no warning.
    """
    for node in nodes:
        if node.frame.has_failed:
            continue
        assert node.place is not None
        code, instruction = node.place
        message = f"{node.label}(...) was called here but never awaited, so it did not run"
        line = _line_of(code, instruction)
        warnings.warn_explicit(message, RuntimeWarning, code.co_filename, line)


def _line_of(code: CodeType, instruction: int) -> int:
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
