"""The record of all calls of a session, for explaining its plan."""

from __future__ import annotations

from collections.abc import Sequence

from helium_agents.graph.node import Node
from helium_agents.graph.plan import LogicalPlan
from helium_agents.optimizer.optimize import optimize
from helium_agents.optimizer.rules import Rule
from helium_agents.runtime.demand import plan_node


class Trace:
    """Calls in the order in which they were made."""

    def __init__(self) -> None:
        self._inputs: dict[Node, tuple[Node, ...]] = {}  # a settled node lets go of its own

    def add(self, node: Node) -> None:
        """Record a call."""
        self._inputs[node] = node.inputs

    def plan(self) -> LogicalPlan:
        """The logical plan of all recorded calls, as if none had been answered."""
        ids = {node: position for position, node in enumerate(self._inputs, 1)}
        return LogicalPlan(
            [
                plan_node(
                    node,
                    ids[node],
                    inputs=tuple(ids[source] for source in inputs),
                    parent=ids.get(node.frame.node) if node.frame.node is not None else None,
                )
                for node, inputs in self._inputs.items()
            ],
            sinks=ids.values(),
        )

    def explain(self, rules: Sequence[Rule]) -> str:
        """The plan as text, after the rules."""
        plan = optimize(self.plan(), {}, rules)
        plan.check()
        return plan.explain()
