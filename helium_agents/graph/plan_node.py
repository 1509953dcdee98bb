"""One call of a plan, and how its answer comes about: computed, known, or taken from another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

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


def text_of(node: PlanNode) -> str:
    """A call of a plan as a line for a person."""
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
