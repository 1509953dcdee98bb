"""Ways to speculate: not at all, as the session sees fit, on every branch, and as one who knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.speculation.engine import Truth
from benchmarks.speculation.programs import Options, Program
from helium_agents.engines.engine import ChatMessage
from helium_agents.graph.tool_call import ToolCall
from helium_agents.optimizer.speculation_budget import Budget


@dataclass(frozen=True)
class System:
    """A way to speculate.

    Args:
        name: What it is called in tables.
        session: What a session is told.
        options: Gives what `llm(...)` is told of a program, where its answer may be guessed.
    """

    name: str
    session: Mapping[str, Any] = field(default_factory=dict)
    options: Callable[[Program, Truth], Options] = lambda program, truth: {}


def _every_answer(program: Program, truth: Truth) -> Options:
    answers = [(answer, 1 / len(program.answers)) for answer in program.answers]
    return {"predict": lambda messages: answers} if answers else {}


def _the_answer(program: Program, truth: Truth) -> Options:
    def predict(messages: Sequence[ChatMessage]) -> Any:
        said = truth(messages)
        if said.calls:
            calls = [ToolCall(name, json.loads(text), text=text) for name, text in said.calls]
            return [(calls, 1.0)]
        return [(json.loads(said.text) if program.answers else said.text, 1.0)]

    return {"predict": predict}


_FREE = Budget(max_extra_tokens=1e9, caution=0.0, least_probability=0.0, max_delay=1e9)

SYSTEMS = (
    System("off", {"speculate": "off"}),
    System("auto", {"speculate": "auto"}),
    System("all branches", {"speculate": _FREE}, _every_answer),
    System("oracle", {"speculate": _FREE}, _the_answer),
)
