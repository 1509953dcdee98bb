"""The prefix tree: which token sequences share how much of their beginning, and who needs it.

A radix tree over tokens, as in SGLang's RadixAttention (arXiv 2312.07104): each edge holds a run of
tokens, and a sequence is a path from the root. It is the one model of what shares KV cache; it
knows no blocks, no engine and no event loop.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

Owner = Hashable


class _Node:
    """Where an edge ends: its tokens, and the owners of the sequences through it, and to it."""

    __slots__ = ("children", "ends", "owners", "tokens")

    def __init__(self, tokens: array[int], owners: Counter[Owner]) -> None:
        self.tokens = tokens
        self.owners = owners
        self.ends: Counter[Owner] = Counter()
        self.children: dict[int, _Node] = {}


class PrefixTree:
    """Token sequences and their owners. An owner may have several, and the same one repeatedly.

    Attributes:
        num_tokens: Tokens of all sequences together, every shared prefix counted once.
    """

    def __init__(self) -> None:
        self._root = _Node(array("I"), Counter())
        self.num_tokens = 0

    def insert(self, tokens: Sequence[int], owner: Owner) -> int:
        """Add a sequence; returns how many of its first tokens were there before."""
        sequence = _array(tokens)
        node, start, num_there = self._root, 0, len(sequence)
        while start < len(sequence):
            child = node.children.get(sequence[start])
            if child is None:
                num_there = start
                child = _Node(sequence[start:], Counter())
                node.children[sequence[start]] = child
                self.num_tokens += len(child.tokens)
            num_equal = _num_equal(child.tokens, sequence, start)
            if num_equal < len(child.tokens):
                _split(child, num_equal)
            child.owners[owner] += 1
            node, start = child, start + num_equal
        node.ends[owner] += 1
        return num_there

    def remove(self, tokens: Sequence[int], owner: Owner) -> None:
        """Take away a sequence that was added, and what is then nobody's.

        Raises:
            KeyError: The owner has no such sequence.
        """
        sequence = _array(tokens)
        path = [*self._path(sequence, owner)]
        last = path[-1][1] if path else self._root
        num_found = sum(len(node.tokens) for _, node in path)
        if num_found < len(sequence) or not last.ends[owner]:
            raise KeyError(f"{owner!r} has no such sequence of {len(sequence)} tokens")
        _take(last.ends, owner)
        for parent, node in path:
            _take(node.owners, owner)
            if not node.owners:
                del parent.children[node.tokens[0]]
                self.num_tokens -= _num_below(node)
                return

    def forget(self, owner: Owner) -> None:
        """Take away all sequences of an owner."""
        stack = [self._root]
        while stack:
            parent = stack.pop()
            parent.ends.pop(owner, None)
            for first, node in list(parent.children.items()):
                if owner in node.owners:
                    del node.owners[owner]
                    if node.owners:
                        stack.append(node)
                    else:
                        del parent.children[first]
                        self.num_tokens -= _num_below(node)

    def num_shared(self, tokens: Sequence[int]) -> int:
        """How many of the first tokens of a sequence are in the tree, whoever's they are."""
        return max((num_shared for num_shared, _ in self._shared(_array(tokens))), default=0)

    def num_shared_by(self, tokens: Sequence[int]) -> dict[Owner, int]:
        """How many of the first tokens of a sequence each owner has, of those who have any."""
        shared: dict[Owner, int] = {}
        for num_shared, node in self._shared(_array(tokens)):
            shared.update(dict.fromkeys(node.owners, num_shared))
        return shared

    def edges(self, tokens: Sequence[int]) -> list[tuple[int, array[int]]]:
        """The edges that a sequence of the tree runs along: a number for each, and its tokens.

        Equal numbers are equal tokens after equal tokens, as long as nothing is inserted.

        Raises:
            KeyError: It does not end where an edge does.
        """
        sequence = _array(tokens)
        found: list[tuple[int, array[int]]] = []
        node, start = self._root, 0
        while start < len(sequence):
            child = node.children.get(sequence[start])
            if child is None or _num_equal(child.tokens, sequence, start) < len(child.tokens):
                raise KeyError(f"no such sequence of {len(sequence)} tokens")
            found.append((id(child), child.tokens))
            node, start = child, start + len(child.tokens)
        return found

    def _shared(self, sequence: array[int]) -> Iterator[tuple[int, _Node]]:
        """The nodes that have more and more of a sequence's beginning, and how much each has."""
        node, start = self._root, 0
        while start < len(sequence):
            child = node.children.get(sequence[start])
            if child is None:
                return
            num_equal = _num_equal(child.tokens, sequence, start)
            start += num_equal
            yield start, child
            if num_equal < len(child.tokens):
                return
            node = child

    def _path(self, sequence: array[int], owner: Owner) -> Iterator[tuple[_Node, _Node]]:
        """The nodes of an owner's sequence with their parents, as far as it goes."""
        node, start = self._root, 0
        while start < len(sequence):
            child = node.children.get(sequence[start])
            if child is None or owner not in child.owners:
                return
            if _num_equal(child.tokens, sequence, start) < len(child.tokens):
                return
            yield node, child
            node, start = child, start + len(child.tokens)


def num_shared_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    return _num_equal(_array(one), _array(other), 0)


def _array(tokens: Sequence[int]) -> array[int]:
    return tokens if isinstance(tokens, array) else array("I", tokens)


def _num_equal(edge: array[int], sequence: array[int], start: int) -> int:
    """How many tokens of an edge a sequence has from `start` on; comparing halves is done in C."""
    end = min(len(edge), len(sequence) - start)
    if edge[:end] == sequence[start : start + end]:
        return end
    low, high = 0, end  # the first `low` are equal, the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        if edge[low:middle] == sequence[start + low : start + middle]:
            low = middle
        else:
            high = middle
    return low


def _split(node: _Node, num_tokens: int) -> None:
    """End a node's edge after so many tokens, with the rest of it below."""
    lower = _Node(node.tokens[num_tokens:], Counter(node.owners))
    lower.children, lower.ends = node.children, node.ends
    node.ends = Counter()
    node.tokens = node.tokens[:num_tokens]
    node.children = {lower.tokens[0]: lower}


def _take(counts: Counter[Owner], owner: Owner) -> None:
    counts[owner] -= 1
    if not counts[owner]:
        del counts[owner]


def _num_below(node: _Node) -> int:
    """The tokens of a node and of all below it."""
    total, stack = 0, [node]
    while stack:
        node = stack.pop()
        total += len(node.tokens)
        stack.extend(node.children.values())
    return total
