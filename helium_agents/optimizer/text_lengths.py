"""How many characters a token has, told apart for instructions and for data.

Instructions are words, which have four characters a token or more; data are often figures or names
and have two. A forecast that took one for the other would be wrong by half about what rows share.
What most rows begin with is taken to be instructions, and the rest of a prompt data.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from helium_agents.optimizer.prefix_tree import PrefixTree

HEADER_TOKENS = 4
"""Of a message: its role, and where it begins and ends."""

_USUAL = 4.0
_LEAST_TOKENS = 64
"""Fewer tell nothing."""


class TextLengths(NamedTuple):
    """Characters of a token.

    Args:
        common: Of text that at least half of the rows have at the same place.
        own: Of all other text.
    """

    common: float = _USUAL
    own: float = _USUAL


class Prompt(NamedTuple):
    """A prompt whose tokens are known.

    Args:
        item: The row that it is of.
        messages: The texts of its messages.
        token_ids: What became of them.
    """

    item: Hashable
    messages: Sequence[str]
    token_ids: Sequence[int]


def text_lengths(prompts: Sequence[Prompt]) -> TextLengths:
    """What some prompts of several rows tell."""
    texts, ids = PrefixTree(), PrefixTree()
    sequences: list[tuple[Prompt, array[int], array[int]]] = []
    for prompt in prompts:
        text = array("I")
        text.frombytes("\n".join(prompt.messages).encode("utf-32-le", "surrogatepass"))
        tokens = array("I", prompt.token_ids)
        texts.insert(text, prompt.item)
        ids.insert(tokens, prompt.item)
        sequences.append((prompt, text, tokens))
    num_items = len({prompt.item for prompt in prompts})
    common_characters = common_tokens = own_characters = own_tokens = 0
    for prompt, text, tokens in sequences:
        num_text = _common(texts, text, prompt.item, num_items)
        num_tokens = _common(ids, tokens, prompt.item, num_items)
        common_characters += num_text
        common_tokens += max(0, num_tokens - HEADER_TOKENS)
        own_characters += len(text) - num_text
        own_tokens += max(0, len(tokens) - num_tokens - HEADER_TOKENS * len(prompt.messages))
    together = _ratio(common_characters + own_characters, common_tokens + own_tokens, _USUAL)
    return TextLengths(
        _ratio(common_characters, common_tokens, together),
        _ratio(own_characters, own_tokens, together),
    )


def _common(tree: PrefixTree, sequence: array[int], item: Hashable, num_items: int) -> int:
    """How much of its beginning at least half of the other items have."""
    shared = tree.num_shared_by(sequence)
    shared.pop(item, None)
    lengths = sorted(shared.values(), reverse=True)
    half = (num_items - 1) // 2
    return lengths[half] if half < len(lengths) else 0


def _ratio(characters: int, tokens: int, otherwise: float) -> float:
    return max(1.0, characters / tokens) if tokens >= _LEAST_TOKENS else otherwise
