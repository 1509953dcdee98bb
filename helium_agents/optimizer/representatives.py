"""Which call of a plan stands for one that has the same answer."""

from __future__ import annotations

from collections.abc import Mapping

from helium_agents.graph.plan import Given, Known, LogicalPlan, Same, Step


class Representatives:
    """Tells whether two inputs are the same answer.

    Args:
        plan: The plan.
        steps: Steps that stand for the plan's own, as far as they are decided.
    """

    def __init__(self, plan: LogicalPlan, steps: Mapping[int, Step]) -> None:
        self._nodes = plan.nodes
        self._steps = steps
        self._first_given: dict[bytes, int] = {}

    def of(self, id_: int) -> int:
        """The call whose answer is that of call `id_`."""
        node = self._nodes[id_]
        step = self._steps.get(id_, node.step)
        if isinstance(step, Known | Given) and node.key is not None:
            return self._first_given.setdefault(node.key, id_)  # equal, answered each for itself
        return step.of if isinstance(step, Same) else id_
