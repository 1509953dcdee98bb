"""The physical plan: how each call that is needed comes to its answer, and in which order.

A logical plan knows only its own calls. Here those that are under way already count too: what asks
the same as one of them joins it, and what asks the same at less length is cut from its answer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

from helium_agents.graph.plan import COMPUTE, Known, LogicalPlan, Prefix, Same, Step


class UnderWay(Protocol):
    """What a plan sees of a call that is under way."""

    @property
    def max_tokens(self) -> int:
        """Most tokens of its answer; 0 for an operator."""
        ...


@dataclass(frozen=True, slots=True)
class Join:
    """The answer is that of the call under way `other`, which asks the same."""

    other: Any


@dataclass(frozen=True, slots=True)
class Cut:
    """The answer is a prefix of that of the call under way `other`, which asks for more tokens."""

    other: Any


Action = Step | Join | Cut


class PhysicalPlan:
    """What is done for which call.

    Args:
        logical: The plan that this carries out.
        actions: What is done, by the ids of the calls that are needed; each after the calls that it
            needs, and otherwise in the order in which they were asked for.
    """

    __slots__ = ("actions", "logical")

    def __init__(self, logical: LogicalPlan, actions: dict[int, Action]) -> None:
        self.logical = logical
        self.actions = actions

    @property
    def num_computed(self) -> int:
        """How many calls are computed."""
        return sum(action is COMPUTE for action in self.actions.values())

    def explain(self) -> str:
        """The plan as text: a line for each call, in the order in which they begin."""
        counts = Counter(type(action).__name__.lower() for action in self.actions.values())
        shown = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))
        return "\n".join([shown or "nothing to do", *map(self._line, self.actions)])

    def _line(self, id_: int) -> str:
        node, action = self.logical.nodes[id_], self.actions[id_]
        line = f"#{id_} {node.label}"
        match action:
            case Known():
                return f"{line} known"
            case Same(of):
                return f"{line} = #{of}"
            case Prefix(of):
                return f"{line} = start of #{of}"
            case Join():
                return f"{line} = a call under way"
            case Cut():
                return f"{line} = start of a call under way"
        inputs = ", ".join(f"#{source}" for source in node.inputs)
        return f"{line} computed" + (f" from {inputs}" if inputs else "")
