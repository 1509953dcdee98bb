"""Rule: drop what no sink needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helium_agents.graph.plan import LogicalPlan


def drop_unneeded(plan: LogicalPlan, known: Mapping[bytes, Any]) -> LogicalPlan:
    """Keep the sinks and what their answers come from.

    >>> from helium_agents.graph.plan import Known, PlanNode
    >>> plan = LogicalPlan([PlanNode(1, "llm", "llm", b"a"),
    ...                     PlanNode(2, "llm", "llm", b"b", inputs=(1,), step=Known("answer"))],
    ...                    sinks=[2])
    >>> print(drop_unneeded(plan, {}).explain())
    1 node: 0 operator calls, 1 model call, of which 0 to compute
    #2 llm of #1 known
    """
    if len(plan.sinks) == len(plan.nodes):
        return plan
    needed: set[int] = set()
    stack = list(plan.sinks)
    while stack:
        id_ = stack.pop()
        if id_ not in needed:
            needed.add(id_)
            stack.extend(plan.nodes[id_].sources)
    if len(needed) == len(plan.nodes):
        return plan
    return LogicalPlan((node for node in plan if node.id in needed), plan.sinks)
