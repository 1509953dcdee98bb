"""From calls to the logical plan of what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node
from helium_agents.graph.plan import COMPUTE, GIVEN, LogicalPlan, PlanNode, Step


def logical_plan(wanted: Sequence[Node]) -> tuple[LogicalPlan, list[Node]]:
    """The plan of the wanted calls and everything they wait for, and these calls, inputs first.

    The first call is number 1 in the plan. What is settled, under way, or not ours to run (plain
    operators) is in it too, since it tells calls apart, but nothing below that.
    """
    ids: dict[Node, int] = {}
    planned: list[PlanNode] = []
    stack = list(wanted)
    stack.reverse()
    expanded: set[Node] = set()
    while stack:
        node = stack[-1]
        if node in ids:
            stack.pop()
            continue
        has_plan = node.flight is not None and node.flight.has_plan
        is_open = node.is_planned and node.outcome is None and not has_plan
        if is_open and node.inputs and node not in expanded:
            expanded.add(node)
            stack.extend(reversed(node.inputs))
            continue
        stack.pop()
        ids[node] = len(ids) + 1
        planned.append(plan_node(node, ids) if is_open else _given_node(node, ids[node]))
    return LogicalPlan(planned, sinks=map(ids.__getitem__, wanted)), list(ids)


def plan_node(
    node: Node,
    ids: Mapping[Node, int],
    inputs: tuple[Node, ...] | None = None,
    parent: int | None = None,
    step: Step = COMPUTE,
) -> PlanNode:
    """What the optimizer sees of a call.

    Args:
        node: The call.
        ids: The numbers of the plan's calls.
        inputs: Its inputs, where it has let go of them.
        parent: The number of the operator's call in whose body it was made.
        step: How its answer comes about.
    """
    inputs = node.inputs if inputs is None else inputs
    source_ids = tuple(map(ids.__getitem__, inputs))
    item = node.frame.item
    rank = None if item is None else item.rank
    if not isinstance(node, LlmNode):
        return PlanNode(
            ids[node], "operator", node.label, node.content, node.key, source_ids,
            record_key=node.record_key, item=rank, parent=parent, step=step,
        )  # fmt: skip
    call = node.call
    return PlanNode(
        ids[node],
        "llm",
        node.label,
        node.content if call.is_shared else None,
        node.key,
        source_ids,
        node.question,
        node.record_key,
        call.sampling.max_tokens,
        call.messages,
        call.model,
        rank,
        parent,
        step,
    )


def _given_node(node: Node, id_: int) -> PlanNode:
    """What the optimizer sees of a call that is answered without it."""
    kind: Literal["llm", "operator"] = "llm" if isinstance(node, LlmNode) else "operator"
    return PlanNode(id_, kind, node.label, key=node.key, step=GIVEN)
