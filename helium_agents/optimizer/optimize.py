"""The optimizer: the rules rewrite a logical plan until nothing changes, and it is lowered.

What comes of lowering is the physical plan: how each call that is needed comes to its answer, and
in which order. A logical plan knows only its own calls. Here those that are under way already count
too: what asks the same as one of them joins it, and what asks the same at less length is cut from
its answer. Equal calls of one plan are equal calls under way, whatever rules there are: nothing is
computed twice for want of a rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from helium_agents.graph.plan import LogicalPlan, PlanError
from helium_agents.graph.plan_node import COMPUTE, GIVEN, Known, PlanNode, Prefix, Same, Step
from helium_agents.optimizer.rules import RULES, Rule


def optimize(
    plan: LogicalPlan, known: Mapping[bytes, Any], rules: Sequence[Rule] = RULES
) -> LogicalPlan:
    """Rewrite a plan without changing any answer.

    Args:
        plan: A valid plan.
        known: Looked-up answers by key; opaque.
        rules: Which rules, in which order. `()` is the plain program.

    Raises:
        PlanError: The rules do not converge; the message names those that keep changing the plan.
    """
    is_one = len(plan.nodes) == len(plan.sinks) == 1
    if is_one and not known:  # rules relate calls to each other, or to what is known
        return plan
    for _ in range(len(plan.nodes) + 2):
        before, changed = plan, []
        for rule in rules:
            rewritten = rule(plan, known)
            if rewritten is not plan:
                changed.append(getattr(rule, "__name__", repr(rule)))
                plan = rewritten
        if plan is before:
            return plan
    raise PlanError(f"the rules do not converge: {', '.join(changed)} keep changing the plan")


class UnderWay(Protocol):
    """What a plan sees of a call that is under way."""

    @property
    def max_tokens(self) -> int:
        """Most tokens of its answer; 0 for an operator."""
        ...


@dataclass(frozen=True, slots=True)
class Join:
    """The answer is that of the call under way `other`, which asks the same."""

    other: Any


@dataclass(frozen=True, slots=True)
class Cut:
    """The answer is a prefix of that of the call under way `other`, which asks for more tokens."""

    other: Any


Action = Step | Join | Cut


@dataclass(frozen=True, slots=True)
class PhysicalPlan:
    """What is done for which call.

    Args:
        logical: The plan that this carries out.
        actions: What is done, by the ids of the calls that are needed; each after the calls that it
            needs, and otherwise in the order in which they were asked for.
    """

    logical: LogicalPlan
    actions: dict[int, Action]

    @property
    def num_computed(self) -> int:
        """How many calls are computed."""
        return sum(action is COMPUTE for action in self.actions.values())

    def explain(self) -> str:
        """The plan as text: a line for each call, in the order in which they begin."""
        counts = Counter(type(action).__name__.lower() for action in self.actions.values())
        shown = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))
        return "\n".join([shown or "nothing to do", *map(self._line, self.actions)])

    def _line(self, id_: int) -> str:
        node, action = self.logical.nodes[id_], self.actions[id_]
        line = f"#{id_} {node.label}"
        match action:
            case Known():
                return f"{line} known"
            case Same(of):
                return f"{line} = #{of}"
            case Prefix(of):
                return f"{line} = start of #{of}"
            case Join():
                return f"{line} = a call under way"
            case Cut():
                return f"{line} = start of a call under way"
        inputs = ", ".join(f"#{source}" for source in node.inputs)
        return f"{line} computed" + (f" from {inputs}" if inputs else "")


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
