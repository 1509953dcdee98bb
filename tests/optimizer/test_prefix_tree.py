"""The prefix tree, against sequences in a list."""

from __future__ import annotations

from array import array
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helium_agents.optimizer.prefix_tree import (
    PrefixTree,
    num_shared_tokens,
)

sequences = st.lists(st.integers(1, 3), max_size=8).map(tuple)
owners = st.sampled_from("abc")


def prefixes(held: Counter[tuple[tuple[int, ...], str]]) -> dict[tuple[int, ...], set[str]]:
    """Every prefix of one token or more, and who has it."""
    found: dict[tuple[int, ...], set[str]] = {}
    for sequence, owner in held.elements():
        for end in range(1, len(sequence) + 1):
            found.setdefault(sequence[:end], set()).add(owner)
    return found


@given(
    st.lists(st.tuples(sequences, owners, st.sampled_from(["insert", "remove", "forget"]))),
    st.lists(sequences, min_size=1, max_size=4),
)
def test_it_is_the_set_of_its_sequences(
    steps: list[tuple[tuple[int, ...], str, str]], asked: list[tuple[int, ...]]
) -> None:
    tree, held = PrefixTree(), Counter[tuple[tuple[int, ...], str]]()
    for sequence, owner, step in steps:
        if step == "insert":
            before = prefixes(held)
            ends = [end for end in range(1, len(sequence) + 1) if sequence[:end] in before]
            assert tree.insert(sequence, owner) == max(ends, default=0)
            held[sequence, owner] += 1
        elif step == "forget":
            tree.forget(owner)
            held = Counter({key: num for key, num in held.items() if key[1] != owner})
        elif not held[sequence, owner]:
            with pytest.raises(KeyError, match="no such sequence"):
                tree.remove(sequence, owner)
        else:
            tree.remove(sequence, owner)
            held[sequence, owner] -= 1
        now = prefixes(held)
        assert tree.num_tokens == len(now)
        for each in asked:
            expected = {
                name: end for end in range(1, len(each) + 1) for name in now.get(each[:end], ())
            }
            assert tree.num_shared_by(each) == expected
            assert tree.num_shared(each) == max(expected.values(), default=0)


@given(sequences, sequences)
def test_two_sequences(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    assert num_shared_tokens(one, other) == shared


def test_long_sequences_share_what_they_share() -> None:
    stem = list(range(100_000))
    tree = PrefixTree()
    tree.insert(array("I", [*stem, 1]), "a")
    assert tree.insert([*stem, 2, 3], "b") == 100_000
    assert tree.num_tokens == 100_003
    tree.remove([*stem, 1], "a")
    assert tree.num_tokens == 100_002
    assert tree.num_shared_by(stem) == {"b": 100_000}
