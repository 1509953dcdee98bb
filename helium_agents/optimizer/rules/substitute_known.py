"""Rule: put in what is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helium_agents.graph.plan import LogicalPlan
from helium_agents.graph.plan_node import COMPUTE, Known, Step


def substitute_known(plan: LogicalPlan, known: Mapping[bytes, Any]) -> LogicalPlan:
    """Answer calls whose key is known; their inputs are then needed by nobody else's sake.

    It cascades: a known answer at the end of a chain spares the whole chain.

    >>> from helium_agents.graph.plan import PlanNode
    >>> plan = LogicalPlan([PlanNode(1, "llm", "llm", b"a", b"a"),
    ...                     PlanNode(2, "llm", "llm", b"b", b"ab", inputs=(1,))], sinks=[2])
    >>> print(substitute_known(plan, {b"ab": "answer"}).explain())
    2 nodes: 0 operator calls, 2 model calls, of which 1 to compute
    #1 llm key=61
    #2 llm of #1 known key=6162
    """
    if not known:
        return plan
    steps: dict[int, Step] = {}
    for node in plan.nodes.values():
        if node.step is COMPUTE and node.key is not None and node.key in known:
            steps[node.id] = Known(known[node.key])
    return plan.with_steps(steps) if steps else plan
