"""The record of all calls of a session, for explaining its plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from helium_agents.graph.node import LlmNode, Node
from helium_agents.graph.plan import LogicalPlan
from helium_agents.optimizer.optimize import optimize
from helium_agents.optimizer.rules import Rule
from helium_agents.runtime.demand import plan_node

_END_CHARACTERS = 28


class Trace:
    """Calls in the order in which they were made."""

    def __init__(self) -> None:
        self._inputs: dict[Node, tuple[Node, ...]] = {}  # a settled node lets go of its own

    def add(self, node: Node) -> None:
        """Record a call."""
        self._inputs[node] = node.inputs

    def plan(self) -> LogicalPlan:
        """The logical plan of all recorded calls, as if none had been answered.

        Calls are numbered as they stand in the text, callers before their calls, so that the
        numbers do not depend on which of several rows was quicker.
        """
        ids = {node: position for position, node in enumerate(self._in_tree_order(), 1)}
        planned = []
        for node, id_ in ids.items():
            inputs = tuple(ids[source] for source in self._inputs[node])
            caller = node.frame.node
            parent = None if caller is None else ids.get(caller)
            text = first_words(node, inputs)
            planned.append(plan_node(node, id_, inputs, parent=parent)._replace(text=text))
        return LogicalPlan(planned, sinks=ids.values())

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

    def explain(self, rules: Sequence[Rule]) -> str:
        """The plan as text, after the rules."""
        plan = optimize(self.plan(), {}, rules)
        plan.check()
        return plan.explain()


def first_words(node: Node, inputs: Sequence[int]) -> str:
    """How a model call's last message begins and ends, in one line; empty for an operator.

    Prompts with a prefix in common differ at the end.

    Args:
        node: The call.
        inputs: The numbers of its inputs, which stand for their texts.
    """
    if not isinstance(node, LlmNode):
        return ""
    _, parts = node.call.messages[-1]
    text = "".join(
        part if isinstance(part, str) else f"{{#{inputs[part.index]}}}" for part in parts
    )
    if len(text) > 8 * _END_CHARACTERS:  # of a document only what may be shown
        text = f"{text[: 4 * _END_CHARACTERS]} {text[-4 * _END_CHARACTERS :]}"
    text = " ".join(text.split())
    if len(text) <= 2 * _END_CHARACTERS:
        return text
    first, last = text[:_END_CHARACTERS], text[-_END_CHARACTERS:]
    return f"{first.rpartition(' ')[0] or first} ... {last.partition(' ')[2] or last}"
