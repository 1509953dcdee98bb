"""Cuts a finished answer to fewer tokens, exactly as vLLM would have ended it there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helium_agents.engines.engine import Choice

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.decoders import DecodeStream

_RESET_MESSAGE = "Invalid prefix encountered"
_PRIMING_TEXT = "a"


class Truncator:
    """Re-runs vLLM's incremental detokenizer over the tokens of an answer.

    vLLM feeds tokens one by one to a `DecodeStream` that was primed with the prompt, and what it
    holds back at the end (the first bytes of an unfinished character) is lost. So the text of the
    first tokens is not a plain `decode` of them. The prompt matters only as text that came
    before: a decoder may drop the space in front of the very first word. Here any other text
    stands in for it, and a cut counts as exact only if the same stream gives back the whole
    answer's text from its tokens.

    Args:
        tokenizer_json: The model's ``tokenizer.json``.
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
        pieces = _decode(self._tokenizer, self._priming, choice.token_ids)
        if pieces is None:
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


def _decode(
    tokenizer: Tokenizer, priming: Sequence[int], token_ids: Sequence[int]
) -> list[str] | None:
    """The text that each token adds, as `vllm.v1.engine.detokenizer` computes it."""
    from tokenizers.decoders import DecodeStream

    stream: DecodeStream = DecodeStream(ids=list(priming), skip_special_tokens=True)
    pieces = []
    for token_id in token_ids:
        try:
            piece = stream.step(tokenizer, token_id)
        except (OverflowError, TypeError):
            return None
        except Exception as error:  # tokenizers raises bare Exception
            if not str(error).startswith(_RESET_MESSAGE):
                return None
            # Some tokenizers decode bytes that are no text non-monotonically; vLLM starts anew.
            stream = DecodeStream(skip_special_tokens=True)
            piece = stream.step(tokenizer, token_id)
        pieces.append(piece or "")
    return pieces
