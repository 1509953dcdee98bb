"""The logical plan: what a set of demanded calls asks for, as data.

A plan is immutable and pure: rules rewrite it, `check` validates it, `explain` prints it. Each
node says how its answer comes about (`step`): computed, known already, the same as another
node's, a prefix of another node's, or given from outside the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from html import escape
from typing import Any, Final, Literal, NamedTuple

from helium_agents.errors import HeliumError
from helium_agents.graph.values import Slot


class Compute:
    """The answer must be computed; there is one instance."""

    __slots__ = ()

    def __new__(cls) -> Compute:  # noqa: D102
        return COMPUTE

    def __repr__(self) -> str:
        return "Compute()"


@dataclass(frozen=True, slots=True)
class Known:
    """The answer is known: `value` is whatever the runtime looked up."""

    value: Any


@dataclass(frozen=True, slots=True)
class Same:
    """The answer is that of node `of`, which asks the same."""

    of: int


@dataclass(frozen=True, slots=True)
class Prefix:
    """The answer is that of node `of`, which asks the same at greater length, cut to size."""

    of: int


class Given:
    """The answer is no business of this plan; there is one instance.

    It is there, somebody computes it, or nobody wants it.
    """

    __slots__ = ()

    def __new__(cls) -> Given:  # noqa: D102
        return GIVEN

    def __repr__(self) -> str:
        return "Given()"


Step = Compute | Known | Same | Prefix | Given

COMPUTE: Compute = object.__new__(Compute)
GIVEN: Given = object.__new__(Given)

Messages = tuple[tuple[str, tuple[str | Slot, ...]], ...]
"""Pairs of a role and its content's segments: static text, and slots for inputs."""

_DERIVED = (Same, Prefix)


class PlanNode(NamedTuple):
    """One call in a plan.

    Args:
        id: Unique in the plan.
        kind: Whether a model or an operator is called.
        label: What a person calls it.
        content: Digest of what is asked apart from inputs; `None` if it must not be merged.
        key: Digest of what is asked including inputs; `None` if it must not be remembered.
        inputs: Ids of the nodes whose values it needs.
        question: Content without `max_tokens`, where a shorter answer is a prefix of a longer.
        record_key: What its answer is kept under: the question with the inputs' keys, or the key
            where there is no question.
        max_tokens: Most tokens of the answer (model calls).
        messages: The prompt's segments (model calls); a slot counts the inputs.
        model: Name of the engine; `None` for the default.
        item: The top-level item that it is made for, by how many were read before; `None` outside
            of any.
        parent: Id of the operator call whose body made this call, where known.
        step: How its answer comes about.
    """

    id: int
    kind: Literal["llm", "operator"]
    label: str
    content: bytes | None = None
    key: bytes | None = None
    inputs: tuple[int, ...] = ()
    question: bytes | None = None
    record_key: bytes | None = None
    max_tokens: int | None = None
    messages: Messages = ()
    model: str | None = None
    item: int | None = None
    parent: int | None = None
    step: Step = COMPUTE

    @property
    def sources(self) -> tuple[int, ...]:
        """Ids of the nodes that must be answered before this one can be."""
        step = self.step
        if step is COMPUTE:
            return self.inputs
        return (step.of,) if isinstance(step, _DERIVED) else ()


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
        lines.append("  " * depth + _explain_node(node))
        stack.extend((child, depth + 1) for child in reversed(children.get(node.id, [])))
    return "\n".join(lines)


def _explain_node(node: PlanNode) -> str:
    parts = [f"#{node.id} {node.label}"]
    if node.max_tokens is not None:
        parts.append(f"max_tokens={node.max_tokens}")
    if node.inputs:
        parts.append("of " + ", ".join(f"#{id_}" for id_ in node.inputs))
    match node.step:
        case Known():
            parts.append("known")
        case Same(of):
            parts.append(f"= #{of}")
        case Prefix(of):
            parts.append(f"= start of #{of}")
        case Given():
            parts.append("not asked")
    if node.key is not None:
        parts.append(f"key={node.key.hex()[:8]}")
    if node.messages:
        parts.append(f'"{_first_words(node)}"')
    return " ".join(parts)


_END_CHARACTERS: Final = 28


def _first_words(node: PlanNode) -> str:
    """How the last message begins and ends, in one line: prompts that share a prefix end apart."""
    _, segments = node.messages[-1]
    text = "".join(
        segment if isinstance(segment, str) else f"{{#{node.inputs[segment.index]}}}"
        for segment in segments
    )
    if len(text) > 8 * _END_CHARACTERS:  # of a document only what may be shown
        text = f"{text[: 4 * _END_CHARACTERS]} {text[-4 * _END_CHARACTERS :]}"
    text = " ".join(text.split())
    if len(text) <= 2 * _END_CHARACTERS:
        return text
    first, last = text[:_END_CHARACTERS], text[-_END_CHARACTERS:]
    return f"{first.rpartition(' ')[0] or first} ... {last.partition(' ')[2] or last}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
