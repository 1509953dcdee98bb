"""The token ids of a rendered conversation, of which what came before is remembered.

Agents send their whole history again with each turn, and many agents the same instructions. A
tokenizer splits a text at its special tokens, which templates put between messages, and encodes
what lies between by itself. So what lies between two of them is encoded once, and looked up later.
"""

from __future__ import annotations

import json
import re
import threading
from array import array
from collections import OrderedDict
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_CHARACTERS = 4_000_000
"""Of the texts that are remembered; with their tokens about 8 MB."""

_SEPARATE_PRE_TOKENIZERS = frozenset({"ByteLevel", "Split", "Digits", "Punctuation"})
"""By them a text is encoded in the same way wherever it stands; the first word by others is not."""

_SAMPLE = " The answer is\n\n12.50 %, isn't it?\tÜber 東京 \U0001f642  "


class Encoder:
    """Encodes texts as a tokenizer does, without adding special tokens; for any thread.

    Args:
        tokenizer: One for which `encoder_of` makes one.
        special: The ids of the tokens that a text is split at, by what they look like.
    """

    def __init__(self, tokenizer: Tokenizer, special: dict[str, int]) -> None:
        self._tokenizer = tokenizer
        self._special = {text: array("I", (number,)) for text, number in special.items()}
        # Of several that begin at the same place the longest counts.
        longest_first = sorted(special, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first))})").split
        self._known: OrderedDict[str, array[int]] = OrderedDict()
        self._num_characters = 0
        self._lock = threading.Lock()

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        return list(chain.from_iterable(map(self._ids, filter(None, self._split(text)))))

    def _ids(self, text: str) -> array[int]:
        found = self._special.get(text)
        if found is not None:
            return found
        with self._lock:
            found = self._known.get(text)
            if found is not None:
                self._known.move_to_end(text)
                return found
        found = array("I", self._tokenizer.encode(text, add_special_tokens=False).ids)
        with self._lock:
            if text not in self._known:
                self._known[text] = found
                self._num_characters += len(text)
            while self._num_characters > _MOST_CHARACTERS:
                self._num_characters -= len(self._known.popitem(last=False)[0])
        return found


def encoder_of(tokenizer: Any) -> Encoder | None:
    """The one of a tokenizer of transformers; `None` where a part may be another one by itself.

    Slow tokenizers, in Python, have no `backend_tokenizer`.
    """
    backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.truncation or backend.padding or backend.encode_special_tokens:
        return None
    if not _encodes_parts_alike(backend):
        return None
    added = [
        (number, token)
        for number, token in backend.get_added_tokens_decoder().items()
        if not token.normalized and token.content
    ]
    if not added or any(each.lstrip or each.rstrip or each.single_word for _, each in added):
        return None
    encoder = Encoder(backend, {token.content: number for number, token in added})
    sample = _SAMPLE.join(token.content for _, token in added[-3:] + added[:3])
    is_alike = encoder.encode(sample) == tokenizer(sample, add_special_tokens=False)["input_ids"]
    return encoder if is_alike else None


def _encodes_parts_alike(backend: Tokenizer) -> bool:
    """Whether a part of a text between special tokens is encoded as it is by itself."""
    if backend.pre_tokenizer is None:
        return False
    try:
        description = json.loads(backend.pre_tokenizer.__getstate__())
    except Exception:  # a bare one, of tokenizers: it is written in Python, and may do anything
        return False
    steps = description.get("pretokenizers", [description])
    return all(
        step["type"] in _SEPARATE_PRE_TOKENIZERS and not step.get("add_prefix_space")
        for step in steps
    )
