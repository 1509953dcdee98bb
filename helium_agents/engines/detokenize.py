"""The text of an answer, or of its first tokens, exactly as vLLM makes it token by token.

vLLM feeds tokens one by one to a `DecodeStream` that was primed with the prompt, and loses what
that holds back at the end, so the text of tokens is not always a plain `decode` of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helium_agents.engines.engine import Choice
from helium_agents.engines.model_source import ModelSource

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.decoders import DecodeStream

_RESET_MESSAGE = "Invalid prefix encountered"
_PRIMING_TEXT = "a"
_NO_CHARACTER = "\ufffd"  # what bytes that are no text are decoded to
_TAIL_TOKENS = 8  # a character has up to four bytes; special tokens at the end have none


class Detokenizer:
    """Makes the text of an answer that has ended, at once instead of token by token.

    vLLM's way costs some microseconds a token, and decodes the prompt; nobody sees what it makes on
    the way unless the text is streamed. Of bytes, decoded byte by byte, both ways make the same,
    where the prompt ends with a whole character and the answer has whole characters only; where
    that is not so, vLLM's way is gone.

    Args:
        tokenizer: One that decodes byte by byte.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def text(self, prompt_token_ids: Sequence[int], token_ids: Sequence[int]) -> str:
        """The text of an answer to a prompt, without special tokens."""
        text: str = self._tokenizer.decode(token_ids)
        if _NO_CHARACTER not in text:
            before: str = self._tokenizer.decode(prompt_token_ids[-_TAIL_TOKENS:])
            if before and not before.endswith(_NO_CHARACTER):
                return text
        return "".join(_pieces(self._tokenizer, prompt_token_ids, token_ids))


def detokenizer_of(tokenizer: Any) -> Detokenizer | None:
    """The one of a tokenizer of transformers; `None` where its tokens are not bytes of their own.

    Slow tokenizers, in Python, have no `backend_tokenizer`.
    """
    from tokenizers.decoders import ByteLevel

    backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.decoder, ByteLevel):
        return None
    return Detokenizer(backend)


class Truncator:
    """Cuts a finished answer to fewer tokens, by vLLM's way over its tokens.

    The prompt matters only as text that came before: a decoder may drop the space in front of the
    very first word. Any other text stands in for it here, and a cut counts as exact only if the
    same stream gives back the whole answer's text from its tokens.
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
            pieces = list(_pieces(self._tokenizer, self._priming, choice.token_ids))
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


def truncator_of(source: ModelSource) -> Truncator | None:
    """The one of a model; `None` where it has no such tokenizer, or `tokenizers` is missing."""
    path = source.file("tokenizer.json")
    try:
        return None if path is None else Truncator(path)
    except ImportError:
        return None


def _pieces(tokenizer: Tokenizer, before: Sequence[int], token_ids: Sequence[int]) -> Iterator[str]:
    """The text that each token adds to what was before, as `vllm.v1.engine.detokenizer` does it."""
    from tokenizers.decoders import DecodeStream

    stream: DecodeStream = DecodeStream(ids=list(before), skip_special_tokens=True)
    for token_id in token_ids:
        try:
            piece = stream.step(tokenizer, token_id)
        except Exception as error:
            if not str(error).startswith(_RESET_MESSAGE):
                raise
            # Some tokenizers decode bytes that are no text non-monotonically; vLLM starts anew.
            stream = DecodeStream(skip_special_tokens=True)
            piece = stream.step(tokenizer, token_id)
        yield piece or ""
