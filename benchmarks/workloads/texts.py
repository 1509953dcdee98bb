"""Readable text of a given length, drawn from a seed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from benchmarks.workloads.sentences import CLOSINGS, SENTENCES, WORDS

Seed = str | int
"""What a text is drawn from: equal seeds give equal texts, in every process."""

SHORTEST_WORDS = min(CLOSINGS)
"""No text is shorter."""

_SLOT = re.compile(r"\{(\w+)\}")


def seeded(*seed: Seed) -> Random:
    """A generator of its own for each seed."""
    return Random("/".join(str(part) for part in seed))


def prose(kind: str, num_words: int, *seed: Seed) -> str:
    """Sentences of a kind (a key of `SENTENCES`), of exactly so many words in all.

    Raises:
        ValueError: A text cannot be so short.
    """
    return " ".join(_sentences(kind, num_words, seeded(kind, *seed)))


def briefing(opening: str, num_words: int) -> str:
    """A role's system prompt of exactly so many words: what it is, then rules to work by.

    Args:
        opening: Says who the role is. The rules are drawn from it: two roles have other ones.
        num_words: Words of the whole.
    """
    return f"{opening} {prose('rule', num_words - len(opening.split()), opening)}"


def _sentences(kind: str, num_words: int, draws: Random) -> Iterator[str]:
    if num_words < SHORTEST_WORDS:
        raise ValueError(f"a text of {num_words} words: {SHORTEST_WORDS} are the least")
    left = num_words
    deck: list[str] = []
    while left:
        deck = deck or draws.sample(SENTENCES[kind], len(SENTENCES[kind]))
        sentence = _first_that_fits(deck, left, draws)
        left -= len(sentence.split())
        yield sentence


def _first_that_fits(deck: list[str], left: int, draws: Random) -> str:
    """Take sentences off the deck until one leaves nothing, or enough for another one."""
    while deck:
        sentence = _fill(deck.pop(), draws)
        rest = left - len(sentence.split())
        if rest == 0 or rest >= SHORTEST_WORDS:
            return sentence
    longest = max(CLOSINGS)
    return draws.choice(CLOSINGS[left if left <= longest else min(left - SHORTEST_WORDS, longest)])


def _fill(sentence: str, draws: Random) -> str:
    filled = _SLOT.sub(lambda slot: draws.choice(WORDS[slot[1]]), sentence)
    return filled[0].upper() + filled[1:]
