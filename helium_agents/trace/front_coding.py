"""Front coding: sequences in sorted order, each as what it shares with the one before and the rest.

Sorted neighbours share most, so the prompts of a debate, each a longer form of an earlier one, take
little more room than what was new in them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from helium_agents.optimizer.prefix_tree import num_shared_tokens

Coded = dict[str, list[Any]]
"""`rests`: of each sequence what it does not share; `shared`: how much it does; `numbers`."""


class Texts:
    """Texts that are told by their number, equal ones once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def add(self, text: str) -> int:
        """The number of a text."""
        return self._numbers.setdefault(text, len(self._numbers))

    def coded(self) -> Coded:
        """All of them."""
        order = sorted(self._numbers)
        symbols = [array("I", text.encode("utf-32-le", "surrogatepass")) for text in order]
        shared = _num_shared(symbols)
        rests = [text[start:] for text, start in zip(order, shared, strict=True)]
        return _coded(rests, shared, [self._numbers[text] for text in order])


class TokenSequences:
    """Sequences of token ids that are told by their number, equal ones once."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def add(self, token_ids: Sequence[int]) -> int:
        """The number of a sequence."""
        return self._numbers.setdefault(array("I", token_ids).tobytes(), len(self._numbers))

    def coded(self) -> Coded:
        """All of them."""
        order = sorted(self._numbers)
        symbols = [array("I", data) for data in order]
        shared = _num_shared(symbols)
        rests = [tokens[start:].tolist() for tokens, start in zip(symbols, shared, strict=True)]
        return _coded(rests, shared, [self._numbers[data] for data in order])


def decoded(coded: Coded) -> list[Any]:
    """What was coded, by number: texts, or lists of token ids."""
    found: list[Any] = [None] * len(coded["numbers"])
    before: Any = None
    for shared, rest, number in zip(*(coded[name] for name in _FIELDS), strict=True):
        before = rest if before is None else before[:shared] + rest
        found[number] = before
    return found


_FIELDS = ("shared", "rests", "numbers")


def _coded(rests: list[Any], shared: list[int], numbers: list[int]) -> Coded:
    return dict(zip(_FIELDS, (shared, rests, numbers), strict=True))


def _num_shared(order: Sequence[array[int]]) -> list[int]:
    """How many symbols each has in common with the one before."""
    shared, before = [], array("I")
    for symbols in order:
        shared.append(num_shared_tokens(before, symbols))
        before = symbols
    return shared
