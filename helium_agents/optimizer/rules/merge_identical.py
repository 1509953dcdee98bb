"""Rule: merge calls that ask the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helium_agents.graph.plan import LogicalPlan
from helium_agents.graph.plan_node import COMPUTE, Prefix, Same, Step
from helium_agents.optimizer.representatives import Representatives


def merge_identical(plan: LogicalPlan, known: Mapping[bytes, Any]) -> LogicalPlan:
    """Let calls with the same content and the same inputs share one answer.

    Inputs count by what they have been merged with, so merging two calls makes the calls above
    them alike too; nodes come after their inputs, so one pass reaches the fixpoint.

    >>> from helium_agents.graph.plan import PlanNode
    >>> plan = LogicalPlan([PlanNode(1, "llm", "llm", b"a"), PlanNode(2, "llm", "llm", b"a"),
    ...                     PlanNode(3, "llm", "llm", b"b", inputs=(1,)),
    ...                     PlanNode(4, "llm", "llm", b"b", inputs=(2,))], sinks=[3, 4])
    >>> print(merge_identical(plan, {}).explain())
    4 nodes: 0 operator calls, 4 model calls, of which 2 to compute
    #1 llm
    #2 llm = #1
    #3 llm of #1
    #4 llm of #2 = #3
    """
    first_by_question: dict[tuple[bytes, tuple[int, ...]], int] = {}
    steps: dict[int, Step] = {}
    same = Representatives(plan, steps)
    for node in plan.in_order():
        if node.step is not COMPUTE or node.content is None:
            continue
        question = (node.content, tuple(map(same.of, node.inputs)) if node.inputs else ())
        first = first_by_question.setdefault(question, node.id)
        if first != node.id:
            steps[node.id] = Same(first)
    if not steps:
        return plan
    # who takes the answer of a merged call takes it from where it comes now
    for node in plan.nodes.values():
        if isinstance(node.step, Same | Prefix) and node.step.of in steps:
            steps[node.id] = type(node.step)(same.of(node.step.of))
    return plan.with_steps(steps)
