"""The logical plan: what a set of demanded calls asks for, as data.

A plan is immutable and pure: `logical_plan` makes it of calls, rules rewrite it, `check` validates
it, `explain` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from html import escape
from typing import Literal

from helium_agents.errors import HeliumError
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node
from helium_agents.graph.plan_node import (
    COMPUTE,
    GIVEN,
    Compute,
    Given,
    Known,
    PlanNode,
    Prefix,
    Same,
    Step,
    text_of,
)


class PlanError(HeliumError):
    """A plan is not well-formed; a rule that produced it is wrong."""


class LogicalPlan:
    """Calls and which of them are wanted.

    Args:
        nodes: The calls.
        sinks: Ids of the wanted ones.
    """

    __slots__ = ("nodes", "sinks")

    def __init__(self, nodes: Iterable[PlanNode], sinks: Iterable[int]) -> None:
        self.nodes: dict[int, PlanNode] = {}
        for node in nodes:
            self.nodes[node.id] = node
        self.sinks = tuple(sinks)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<pre>{escape(self.explain())}</pre>"

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[PlanNode]:
        return iter(self.nodes.values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LogicalPlan):
            return NotImplemented
        return self.nodes == other.nodes and self.sinks == other.sinks

    __hash__ = None  # type: ignore[assignment]

    def with_steps(self, steps: dict[int, Step]) -> LogicalPlan:
        """The plan with some nodes' steps replaced."""
        return LogicalPlan(
            [n._replace(step=steps[n.id]) if n.id in steps else n for n in self.nodes.values()],
            self.sinks,
        )

    def in_order(self) -> list[PlanNode]:
        """The nodes, each after its sources.

        Raises:
            PlanError: The plan has a cycle.
        """
        nodes = list(self.nodes.values())
        for node in nodes:
            if (node.inputs or node.step is not COMPUTE) and node.sources:
                break
        else:
            return nodes
        sorter = TopologicalSorter({node.id: node.sources for node in self})
        try:
            return [self.nodes[id_] for id_ in sorter.static_order()]
        except CycleError as error:
            raise PlanError(f"the plan's nodes {error.args[1]} depend on each other") from None

    def check(self) -> None:
        """Validate the plan.

        Raises:
            PlanError: What is wrong with which node.
        """
        for sink in self.sinks:
            if sink not in self.nodes:
                raise PlanError(f"sink {sink} is not in the plan")
        for node in self:
            for source in node.sources:
                if source not in self.nodes:
                    raise PlanError(f"node {node.id} needs node {source}, which is not in the plan")
            _check_step(node, self.nodes)
        self.in_order()

    def explain(self) -> str:
        """The plan as text for a person: callers above their calls, other calls by their numbers.

        ``= #8`` is answered together with call 8, ``= start of #8`` with a part of its answer.
        """
        return _explain(self)


def _check_step(node: PlanNode, nodes: dict[int, PlanNode]) -> None:
    step = node.step
    if isinstance(step, Compute | Known | Given):
        return
    other = nodes[step.of]
    if isinstance(other.step, Same):
        raise PlanError(
            f"node {node.id} takes the answer of node {other.id}, which takes another's"
        )
    if isinstance(step, Prefix):
        if node.question is None or node.question != other.question:
            raise PlanError(f"node {node.id} is no prefix of node {other.id}: they ask differently")
        if (node.max_tokens or 0) > (other.max_tokens or 0):
            raise PlanError(
                f"node {node.id} is longer than node {other.id}, of which it is a prefix"
            )
    elif node.content is None or node.content != other.content:
        raise PlanError(f"node {node.id} is not the same as node {other.id}: they ask differently")


def _explain(plan: LogicalPlan) -> str:
    children: dict[int | None, list[PlanNode]] = {}
    for node in plan:
        children.setdefault(node.parent if node.parent in plan.nodes else None, []).append(node)
    num_operators = sum(node.kind == "operator" for node in plan)
    num_computed = sum(node.kind == "llm" and node.step is COMPUTE for node in plan)
    lines = [
        f"{_count(len(plan), 'node')}: {_count(num_operators, 'operator call')}, "
        f"{_count(len(plan) - num_operators, 'model call')}, of which {num_computed:,} to compute"
    ]
    stack = [(node, 0) for node in reversed(children.get(None, []))]
    while stack:
        node, depth = stack.pop()
        lines.append("  " * depth + text_of(node))
        stack.extend((child, depth + 1) for child in reversed(children.get(node.id, [])))
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
        planned.append(as_plan_node(node, ids) if is_open else _given_node(node, ids[node]))
    return LogicalPlan(planned, sinks=map(ids.__getitem__, wanted)), list(ids)


def as_plan_node(
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
