"""Answers that depend on every token of the prompt, and on nothing else.

A model with random weights hides errors: drop fifty words of a prompt and often the same token
comes out; batch it otherwise and, in bfloat16, sometimes another one does. So the engines of the
benchmarks compute a model of honest size and then answer by a digest of the prompt. An answer
then differs whenever a prompt does, equal prompts have equal answers however they are batched,
and what the whole plain program must answer is known without an engine.

Answers are words, one token each. They end by themselves after a number of tokens that the digest
draws log-uniformly from 16 to 4,096, so that few short answers and most long ones end early, and
an answer with a smaller `max_tokens` is the beginning of one with a larger.

Inside vLLM's processes `benchmarks.harness.digest_processor` gives these answers; what both need to
know of the tokenizer is in the model's directory, see `benchmarks.harness.model`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE_NAME = "digest_answers.json"
"""File of a model's directory that `Vocabulary.read` reads."""

MIN_TOKENS, MAX_TOKENS = 16, 4096


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of answers.

    Args:
        word_ids: Tokens that are a word with a space before it.
        end_id: The token that ends an answer.
    """

    word_ids: NDArray[np.int64]
    end_id: int

    @staticmethod
    def read(directory: Path) -> Vocabulary:
        """Of a model made by `benchmarks.harness.model`."""
        found = json.loads((directory / FILE_NAME).read_text())
        return Vocabulary(np.asarray(found["word_ids"]), found["end_id"])

    def answer(self, prompt_token_ids: Sequence[int], max_tokens: int) -> list[int]:
        """Token ids of the answer, its end token included if it ends by itself."""
        seed = xxhash.xxh3_64_intdigest(np.asarray(prompt_token_ids, dtype=np.int32).tobytes())
        draws = _draws(seed, max_tokens + 1)
        length = int(MIN_TOKENS * (MAX_TOKENS / MIN_TOKENS) ** (float(draws[0]) / 2**64))
        words: list[int] = self.word_ids[draws[1:] % np.uint64(len(self.word_ids))].tolist()
        return words if length >= max_tokens else [*words[:length], self.end_id]


def _draws(seed: int, count: int) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood, 2014) from a seed."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
