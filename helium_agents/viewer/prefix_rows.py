"""The prefix tree for the page: its largest nodes, with the text that they stand for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from heapq import heappop, heappush
from itertools import takewhile
from operator import eq
from typing import Any

from helium_agents.diagnose.analyze import Paths
from helium_agents.diagnose.losses import Loss
from helium_agents.diagnose.prefixes import Prefixes, PrefixNode
from helium_agents.trace.run import TracedCall, TracedRun

_MOST_NODES = 1_500
_MOST_TEXTS = 200
_MOST_CHARACTERS = 2_000
_LOOKED_AT = 8
"""Of so many prompts of a node its text is taken; of so many calls what they share late."""

_WORDS = 12
_HEAD = 100
_LONG = 20_000
"""So many characters of a prompt are compared with another."""


def prefix_rows(tree: Prefixes) -> dict[str, Any]:
    """A model's prefix tree as columns: its largest nodes, parents before what follows them."""
    nodes = _largest(tree.roots)
    texts = _texts(tree, nodes)
    return {
        "model": tree.model,
        "num_prompts": len(tree.calls),
        "most_tokens": max((call.prompt_tokens for call in tree.calls), default=0),
        "calls": [call.number for call in tree.calls],
        "begin": [node.begin for node, _ in nodes],
        "end": [node.end for node, _ in nodes],
        "start": [node.start for node, _ in nodes],
        "stop": [node.stop for node, _ in nodes],
        "hit": [node.hit_tokens for node, _ in nodes],
        "lost": [node.lost_tokens for node, _ in nodes],
        "parent": [parent for _, parent in nodes],
        "reach": [_mean_tokens(tree.calls[node.begin : node.end]) for node, _ in nodes],
        "text": texts,
    }


def _largest(roots: Sequence[PrefixNode]) -> list[tuple[PrefixNode, int]]:
    """The nodes with most tokens, each with its parent's place; none without its parent."""
    heap: list[tuple[int, int, int, PrefixNode]] = []
    number = 0

    def push(nodes: Sequence[PrefixNode], parent: int) -> None:
        nonlocal number
        for node in nodes:
            number += 1
            heappush(heap, (-_weight(node), number, parent, node))

    push(roots, -1)
    found: list[tuple[PrefixNode, int]] = []
    while heap and len(found) < _MOST_NODES:
        _, _, parent, node = heappop(heap)
        push(node.children, len(found))
        found.append((node, parent))
    return found


def _mean_tokens(calls: Sequence[TracedCall]) -> int:
    return round(sum(call.prompt_tokens for call in calls) / len(calls))


def _weight(node: PrefixNode) -> int:
    """What is seen of it: shared nodes come before the rests of single prompts."""
    return node.num_tokens * (10 if node.num_prompts > 1 else 1)


def _texts(tree: Prefixes, nodes: Sequence[tuple[PrefixNode, int]]) -> list[str | None]:
    """What the first nodes say: what their prompts have in common, less what those before say."""
    found: list[str | None] = []
    lengths: list[int] = []
    for place, (node, parent) in enumerate(nodes):
        step = max(1, node.num_prompts // _LOOKED_AT)
        some = [flat_text(call) for call in tree.calls[node.begin : node.end : step]]
        if place >= _MOST_TEXTS or not all(some):
            found.append(None)
            lengths.append(0)
            continue
        common = _common_start(some)
        before = lengths[parent] if parent >= 0 else 0
        found.append(common[before : before + _MOST_CHARACTERS])
        lengths.append(len(common))
    return found


def flat_text(call: TracedCall) -> str:
    """A conversation as one text; "" where it was not kept."""
    if call.answer is None or call.answer.messages is None:
        return ""
    return "\n".join(f"{role}: {text}" for role, text in call.answer.messages)


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)  # all others are between them
    return first[: sum(takewhile(bool, map(eq, first, last)))]


def late_parts(run: TracedRun, found: Sequence[Loss]) -> list[dict[str, Any]]:
    """For each operator whose prompts share a text too late: that text, and what comes before."""
    paths = Paths(run)
    rows = []
    for loss in found:
        if loss.kind != "layout":
            continue
        calls = (c for c in run.computed if (paths.of(c.body) or ("",))[-1] == loss.operator)
        part = _late_part([flat_text(call) for call in calls])
        if part is not None:
            before, shared, number = part
            rows.append(
                {"operator": loss.operator, "before": before, "shared": shared, "prompts": number}
            )
    return rows


def _late_part(texts: Sequence[str]) -> tuple[str, str, int] | None:
    """What two prompts have in common behind where they part: what is before, it, and how often."""
    some = [text for text in texts[:: max(1, len(texts) // 100)] if text]
    numbers: Counter[tuple[str, ...]] = Counter()
    windows = []
    for text in some:
        words = text[len(_common_start(some)) :].split()
        windows.append({tuple(words[at : at + _WORDS]) for at in range(len(words) - _WORDS + 1)})
        numbers.update(windows[-1])
    common = {window for window, number in numbers.items() if number >= 3}
    if not common:
        return None
    place = max(range(len(some)), key=lambda at: len(windows[at] & common))
    mine = windows[place] & common
    like = sorted(range(len(some)), key=lambda at: -len(windows[at] & mine))
    other = next(at for at in like if at != place)
    start = len(_common_start([some[place], some[other]]))
    one, two = (re.findall(r"\S+\s*", some[at][start : start + _LONG]) for at in (place, other))
    match = SequenceMatcher(None, one, two, autojunk=False).find_longest_match()
    shared = "".join(one[match.a : match.a + match.size]).strip()
    middle = shared[len(shared) // 3 : len(shared) * 2 // 3]
    shared = shared[shared[:_HEAD].rfind("\n") + 1 :]  # a line's end may be the same by chance
    before = some[place][start : some[place].index(shared, start)]
    return (
        before[-_MOST_CHARACTERS:].strip(),
        shared[:_MOST_CHARACTERS],
        sum(middle in text for text in texts),
    )
