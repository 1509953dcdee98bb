"""Which call of a plan stands for one that has the same answer."""

from __future__ import annotations

from collections.abc import Mapping

from helium_agents.graph.plan import LogicalPlan
from helium_agents.graph.plan_node import Given, Known, Same, Step


class Representatives:
    """Tells whether two inputs are the same answer.

    Args:
        plan: The plan.
        steps: Steps that stand for the plan's own, as far as they are decided.
    """

    def __init__(self, plan: LogicalPlan, steps: Mapping[int, Step]) -> None:
        self._nodes = plan.nodes
        self._steps = steps
        self._given: dict[bytes, int] = {}  # by key: equal calls may be answered each for itself
        for node in plan.nodes.values():
            if isinstance(node.step, Known | Given) and node.key is not None:
                self._given.setdefault(node.key, node.id)

    def of(self, id_: int) -> int:
        """The call whose answer is that of call `id_`."""
        node = self._nodes[id_]
        step = self._steps.get(id_, node.step)
        if isinstance(step, Same):
            id_ = step.of
            node = self._nodes[id_]
        return id_ if node.key is None else self._given.get(node.key, id_)
