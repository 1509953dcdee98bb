"""Lowering: from what a plan's calls are to what is done for those that are needed.

Equal calls of one plan are equal calls under way, whatever rules there are: nothing is computed
twice for want of a rule.
"""

from __future__ import annotations

from collections.abc import Mapping

from helium_agents.graph.physical_plan import Action, Cut, Join, PhysicalPlan, UnderWay
from helium_agents.graph.plan import COMPUTE, GIVEN, LogicalPlan, PlanNode, Prefix, Same


def lower(plan: LogicalPlan, under_way: Mapping[bytes, UnderWay] | None) -> PhysicalPlan:
    """What is done for each call that a wanted one needs.

    Args:
        plan: A valid plan, optimized or not.
        under_way: The calls that are computed already, by key and by record key; `None` where
            calls are not shared.

    >>> plan = LogicalPlan([PlanNode(1, "llm", "llm", b"a", b"a"),
    ...                     PlanNode(2, "llm", "llm", b"b", b"b", inputs=(1,)),
    ...                     PlanNode(3, "llm", "llm", b"c", b"c")], sinks=[3, 2])
    >>> print(lower(plan, {}).explain())
    3 compute
    #3 llm computed
    #1 llm computed
    #2 llm computed from #1
    """
    in_order: dict[int, Action] = {}
    decided: dict[int, Action] = {}
    own: dict[bytes, PlanNode] = {}
    stack = list(reversed(plan.sinks))
    while stack:
        id_ = stack[-1]
        node = plan.nodes[id_]
        if id_ in in_order or node.step is GIVEN:
            stack.pop()
            continue
        if id_ in decided:  # what it needs comes before it
            in_order[id_] = decided[id_]
            stack.pop()
            continue
        action: Action = node.step
        if action is COMPUTE and under_way is not None and node.key is not None:
            action = _shared(node, under_way, own)
        decided[id_] = action
        if action is COMPUTE:
            stack.extend(reversed(node.inputs))
        elif isinstance(action, Same | Prefix):
            stack.append(action.of)
    return PhysicalPlan(plan, in_order)


def _shared(
    node: PlanNode, under_way: Mapping[bytes, UnderWay], own: dict[bytes, PlanNode]
) -> Action:
    """How a call is answered that is computed unless another is, under way or in this plan."""
    if node.content is None or node.key is None:
        return COMPUTE
    if node.key in under_way:
        return Join(under_way[node.key])
    if node.key in own:
        return Same(own[node.key].id)
    own[node.key] = node
    if node.record_key is None or node.max_tokens is None:
        return COMPUTE
    other = under_way.get(node.record_key)
    if other is not None and other.max_tokens > node.max_tokens:
        return Cut(other)
    mine = own.get(node.record_key)
    if mine is not None and (mine.max_tokens or 0) > node.max_tokens:
        return Prefix(mine.id)
    own[node.record_key] = node
    return COMPUTE
