"""Rule: cut short answers from long ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helium_agents.graph.plan import LogicalPlan
from helium_agents.graph.plan_node import COMPUTE, PlanNode, Prefix, Step
from helium_agents.optimizer.representatives import Representatives


def subsume_shorter(plan: LogicalPlan, known: Mapping[bytes, Any]) -> LogicalPlan:
    """Take a greedy answer from the same call with a greater `max_tokens`, cut to size.

    >>> plan = LogicalPlan([PlanNode(1, "llm", "llm", b"a64", question=b"a", max_tokens=64),
    ...                     PlanNode(2, "llm", "llm", b"a512", question=b"a", max_tokens=512)],
    ...                    sinks=[1, 2])
    >>> print(subsume_shorter(plan, {}).explain())
    2 nodes: 0 operator calls, 2 model calls, of which 1 to compute
    #1 llm max_tokens=64 = start of #2
    #2 llm max_tokens=512
    """
    same = Representatives(plan, {})
    by_question: dict[tuple[bytes, tuple[int, ...]], list[PlanNode]] = {}
    for node in plan.nodes.values():
        if node.step is COMPUTE and node.question is not None and node.content is not None:
            inputs = tuple(map(same.of, node.inputs)) if node.inputs else ()
            by_question.setdefault((node.question, inputs), []).append(node)
    steps: dict[int, Step] = {}
    for alike in by_question.values():
        if len(alike) == 1:
            continue
        longest = max(alike, key=lambda node: node.max_tokens or 0)
        for node in alike:
            if (node.max_tokens or 0) < (longest.max_tokens or 0):
                steps[node.id] = Prefix(longest.id)
    return plan.with_steps(steps) if steps else plan
