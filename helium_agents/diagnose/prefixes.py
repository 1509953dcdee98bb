"""Which prompts of a run begin alike: its prefix tree, as rectangles of prompt tokens.

In sorted order (any will do) prompts that share a beginning stand side by side. So a node of the
tree is a range of them and a range of positions, and its area is the tokens that were asked
through it.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from helium_agents.diagnose.analyze import cacheable_tokens
from helium_agents.optimizer.prefix_tree import num_shared_tokens
from helium_agents.trace.run import TracedCall, TracedRun


@dataclass
class PrefixNode:
    """Tokens that several prompts have in the same place, after equal ones; or one prompt's rest.

    Args:
        begin: The first prompt that has them, by its place in `Prefixes.calls`.
        end: The last one, and one.
        start: How many tokens stand before them.
        stop: Where they end.
        children: What follows, one for each way in which it goes on.
        hit_tokens: Of all of these prompts together: what the engine had in its cache.
        lost_tokens: What it had computed before, and no longer or not yet had.
    """

    begin: int
    end: int
    start: int
    stop: int
    children: list[PrefixNode] = field(default_factory=list)
    hit_tokens: int = 0
    lost_tokens: int = 0

    @property
    def num_prompts(self) -> int:
        """How many prompts have them."""
        return self.end - self.begin

    @property
    def num_tokens(self) -> int:
        """The tokens of all of these prompts together."""
        return self.num_prompts * (self.stop - self.start)


@dataclass(frozen=True)
class Prefixes:
    """The prefix tree of a model's computed calls.

    Args:
        model: What a person calls it.
        calls: In the order of their prompts.
        roots: One for each way in which prompts begin.
    """

    model: str
    calls: list[TracedCall]
    roots: list[PrefixNode]


def prefixes(run: TracedRun, cacheable: Mapping[int, int] | None = None) -> list[Prefixes]:
    """The prefix tree of each model whose engine tells token ids.

    Args:
        run: The run.
        cacheable: Its `cacheable_tokens`, where they are there already.
    """
    cacheable = cacheable_tokens(run) if cacheable is None else cacheable
    models: dict[str, list[tuple[bytes, TracedCall]]] = {}
    for call in run.computed:
        if call.answer is not None and call.answer.prompt:
            models.setdefault(call.model, []).append((call.answer.prompt.tobytes(), call))
    found = []
    for model, keyed in sorted(models.items()):
        keyed.sort(key=lambda each: each[0])
        calls = [call for _, call in keyed]
        roots = _tree(calls)
        _count(roots, calls, cacheable)
        found.append(Prefixes(model, calls, roots))
    return found


def _tree(calls: Sequence[TracedCall]) -> list[PrefixNode]:
    """The nodes of sorted prompts, from how much each shares with the one before."""
    top = PrefixNode(0, len(calls), 0, 0)
    open_nodes = [top]
    before: array[int] = array("I")
    for place, call in enumerate(calls):
        assert call.answer is not None
        prompt = call.answer.prompt
        shared = num_shared_tokens(before, prompt)
        closed: PrefixNode | None = None
        while open_nodes[-1].stop > shared:
            closed = open_nodes.pop()
            closed.end = place
        parent = open_nodes[-1]
        if closed is not None and parent.stop < shared:  # its first part is this prompt's too
            upper = PrefixNode(closed.begin, place, closed.start, shared, [closed])
            closed.start = shared
            parent.children[-1] = upper
            open_nodes.append(upper)
            parent = upper
        if len(prompt) > parent.stop:
            node = PrefixNode(place, place, parent.stop, len(prompt))
            parent.children.append(node)
            open_nodes.append(node)
        before = prompt
    for node in open_nodes:
        node.end = len(calls)
    return top.children


def _count(
    roots: Sequence[PrefixNode], calls: Sequence[TracedCall], cacheable: Mapping[int, int]
) -> None:
    stack = list(roots)
    while stack:
        node = stack.pop()
        width = node.stop - node.start
        for call in calls[node.begin : node.end]:
            hit = min(max(0, call.cached_tokens - node.start), width)
            could = min(max(0, cacheable.get(call.number, 0) - node.start), width)
            node.hit_tokens += hit
            node.lost_tokens += max(0, could - hit)
        stack += node.children
