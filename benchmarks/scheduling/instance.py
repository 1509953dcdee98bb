"""A scheduling instance: model calls whose prompts share prefixes, and what waits for what.

Prompts are sequences of segments, so the calls of an instance form a prefix tree. A segment may be
what another call said: then its tokens are unknown until that call ends, and the call that reads
it waits. An instance says nothing about order or cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt that is shared whole or not at all.

    Args:
        key: Which text it is; equal keys are equal text.
        num_tokens: How long it is.
        said_by: The index of the call whose answer it is, or `None` for text known beforehand.
    """

    key: str
    num_tokens: int
    said_by: int | None = None


@dataclass(frozen=True)
class Call:
    """One model call.

    Args:
        operator: The agent's step that makes it; an operator makes one such call per item.
        item: The row of the batch that it belongs to.
        prompt: What it reads, first to last.
        output_tokens: How much it says.
    """

    operator: str
    item: int
    prompt: tuple[Segment, ...]
    output_tokens: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.operator}[{self.item}]"

    @cached_property
    def prompt_tokens(self) -> int:
        """The length of the prompt."""
        return sum(segment.num_tokens for segment in self.prompt)

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """The indices of the calls whose answers it reads, rising."""
        said = {segment.said_by for segment in self.prompt}
        return tuple(sorted(index for index in said if index is not None))

    def shared_tokens(self, other: Call) -> int:
        """The tokens above the lowest common ancestor of two calls in the prefix tree."""
        pairs = zip(self.prompt, other.prompt, strict=False)
        return sum(mine.num_tokens for mine, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


@dataclass(frozen=True)
class Instance:
    """A batch of one workflow, on one worker.

    Args:
        name: The workflow, for people.
        num_agents: How many agents the workflow has.
        batch: How many items it runs for.
        kv_capacity_tokens: What the worker's KV cache holds.
        calls: All calls; each comes after those whose answers it reads.

    Raises:
        ValueError: A call reads an answer that comes later, a segment's length is not its answer's,
            one key has two lengths, or a call alone is larger than the cache.
    """

    name: str
    num_agents: int
    batch: int
    kv_capacity_tokens: int
    calls: tuple[Call, ...]

    def __post_init__(self) -> None:
        segments: dict[str, Segment] = {}
        for index, call in enumerate(self.calls):
            if call.output_tokens < 1:
                raise ValueError(f"{call.name} says nothing")
            if call.prompt_tokens + call.output_tokens > self.kv_capacity_tokens:
                raise ValueError(f"{call.name} does not fit into the KV cache")
            for segment in call.prompt:
                if segments.setdefault(segment.key, segment) != segment:
                    raise ValueError(f"{segment.key!r} stands for two texts")
                source = segment.said_by
                if source is None:
                    continue
                if not 0 <= source < index:
                    raise ValueError(f"{call.name} reads an answer that comes later")
                if segment.num_tokens != self.calls[source].output_tokens:
                    raise ValueError(f"{segment.key!r} is not as long as the answer that it is")

    @cached_property
    def ancestors(self) -> tuple[frozenset[int], ...]:
        """For each call, those that must have ended before it: its inputs, and theirs."""
        found: list[frozenset[int]] = []
        for call in self.calls:
            found.append(frozenset(call.inputs).union(*(found[index] for index in call.inputs)))
        return tuple(found)

    @property
    def prompt_tokens(self) -> int:
        """All prompts together."""
        return sum(call.prompt_tokens for call in self.calls)

    @property
    def tree_tokens(self) -> int:
        """All prompts together, every shared prefix counted once: the size of the prefix tree."""
        nodes = {
            call.prompt[: depth + 1] for call in self.calls for depth in range(len(call.prompt))
        }
        return sum(node[-1].num_tokens for node in nodes)

    def check(self, order: Sequence[int]) -> None:
        """Make sure that an order runs every call once, and after its inputs.

        Raises:
            ValueError: It does not.
        """
        if sorted(order) != list(range(len(self.calls))):
            raise ValueError("an order has every call once")
        done: set[int] = set()
        for index in order:
            if not done.issuperset(self.calls[index].inputs):
                raise ValueError(f"{self.calls[index].name} runs before what it reads")
            done.add(index)
