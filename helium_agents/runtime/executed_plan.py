"""What a session really did: every call, and how its answer came about."""

from __future__ import annotations

from collections.abc import Iterator

from helium_agents.graph.node import Node
from helium_agents.graph.plan import LogicalPlan, as_plan_node
from helium_agents.graph.plan_node import COMPUTE, GIVEN, Known, Prefix, Same, Step
from helium_agents.telemetry.events import CallSettled, Event


class ExecutedPlan:
    """The calls of a session in the order in which they were made; an observer of their ends."""

    def __init__(self) -> None:
        self._inputs: dict[Node, tuple[Node, ...]] = {}  # a settled node lets go of its own
        self._numbered: dict[int, Node] = {}
        self._settled: dict[int, CallSettled] = {}

    def add(self, node: Node) -> None:
        """A call was made."""
        self._inputs[node] = node.inputs
        self._numbered[node.number] = node

    def __call__(self, event: Event) -> None:
        """Keep how a call was answered."""
        if isinstance(event, CallSettled):
            self._settled[event.call] = event

    @property
    def nodes(self) -> list[Node]:
        """The calls in the order in which they were made."""
        return list(self._inputs)

    def plan(self, *, as_executed: bool) -> LogicalPlan:
        """The plan of all calls.

        Calls are numbered as they stand in the text, callers before their calls, so that the
        numbers do not depend on which of several rows was quicker.

        Args:
            as_executed: Whether the steps tell how the answers came about; otherwise all are
                computed, as the program asked for them.
        """
        ids = {node: id_ for id_, node in enumerate(self._in_tree_order(), 1)}
        planned = []
        for node in ids:
            caller = node.frame.node
            parent = None if caller is None else ids.get(caller)
            step = self._step(node, ids) if as_executed else COMPUTE
            planned.append(as_plan_node(node, ids, self._inputs[node], parent, step))
        return LogicalPlan(planned, sinks=ids.values())

    def _step(self, node: Node, ids: dict[Node, int]) -> Step:
        """How a call came to its answer."""
        settled = self._settled.get(node.number)
        if settled is None:
            return COMPUTE if node.is_asked or not node.is_planned else GIVEN
        if settled.source in ("memo", "earlier"):
            return Known(None)
        leader = self._leader(settled)
        if leader not in ids or leader is node:
            return COMPUTE
        if settled.source in ("merged", "joined"):
            return Same(ids[leader])
        return Prefix(ids[leader]) if settled.source == "prefix" else COMPUTE

    def _leader(self, settled: CallSettled) -> Node | None:
        """The call whose answer a call took, which may have taken it from yet another."""
        while True:
            leader = self._settled.get(settled.leader)
            if leader is None or leader is settled or leader.source not in ("merged", "joined"):
                return self._numbered.get(settled.leader)
            settled = leader

    def _in_tree_order(self) -> Iterator[Node]:
        """Callers, each followed by its calls in the order in which they were made."""
        callees: dict[Node | None, list[Node]] = {}
        for node in self._inputs:
            caller = node.frame.node
            callees.setdefault(caller if caller in self._inputs else None, []).append(node)
        stack = callees.get(None, [])[::-1]
        while stack:
            node = stack.pop()
            yield node
            stack += callees.get(node, [])[::-1]
