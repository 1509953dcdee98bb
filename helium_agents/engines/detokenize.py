"""Cuts a finished answer to fewer tokens, exactly as vLLM would have ended it there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helium_agents.engines.engine import Choice
from helium_agents.engines.model_source import ModelSource

if TYPE_CHECKING:
    from tokenizers.decoders import DecodeStream

_RESET_MESSAGE = "Invalid prefix encountered"
_PRIMING_TEXT = "a"


class Truncator:
    """Re-runs vLLM's incremental detokenizer over the tokens of an answer.

    vLLM feeds tokens one by one to a `DecodeStream` that was primed with the prompt, and loses what
    that holds back at the end, so the text of the first tokens is not a plain `decode` of them. The
    prompt matters only as text that came before: a decoder may drop the space in front of the very
    first word. Any other text stands in for it here, and a cut counts as exact only if the same
    stream gives back the whole answer's text from its tokens.
    """

    def __init__(self, tokenizer_json: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(tokenizer_json))
        self._priming = self._tokenizer.encode(_PRIMING_TEXT, add_special_tokens=False).ids

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The answer as `max_tokens` would have ended it; `None` where that is not certain.

        A stop string completes with the last token of the answer that it ended, or the answer
        would have been shorter; so no shorter cut contains it, and each ends by ``"length"``.
        """
        try:
            pieces = list(self._pieces(choice.token_ids))
        except Exception:  # bare ones, of tokenizers: it does not know one of the tokens
            return None
        whole = "".join(pieces)
        # An answer that the model or a stop string ended has a tail that is not part of its text.
        is_reproduced = (
            whole == choice.text
            if choice.finish_reason == "length"
            else whole.startswith(choice.text)
        )
        if not is_reproduced:
            return None
        return Choice("".join(pieces[:max_tokens]), choice.token_ids[:max_tokens], "length")

    def _pieces(self, token_ids: Sequence[int]) -> Iterator[str]:
        """The text that each token adds, as `vllm.v1.engine.detokenizer` computes it."""
        from tokenizers.decoders import DecodeStream

        stream: DecodeStream = DecodeStream(ids=list(self._priming), skip_special_tokens=True)
        for token_id in token_ids:
            try:
                piece = stream.step(self._tokenizer, token_id)
            except Exception as error:
                if not str(error).startswith(_RESET_MESSAGE):
                    raise
                # Some tokenizers decode bytes that are no text non-monotonically; vLLM starts anew.
                stream = DecodeStream(skip_special_tokens=True)
                piece = stream.step(self._tokenizer, token_id)
            yield piece or ""


def truncator_of(source: ModelSource) -> Truncator | None:
    """The one of a model; `None` where it has no such tokenizer, or `tokenizers` is missing."""
    path = source.file("tokenizer.json")
    try:
        return None if path is None else Truncator(path)
    except ImportError:
        return None
