"""The answers to one request, as vLLM gives them: told in pieces, put together at the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from helium_agents.engines.engine import Choice, Delta, OnDelta, Request
from helium_agents.engines.vllm_answer import AnswerReader, StreamedText
from helium_agents.engines.vllm_request import choice_of

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput


class Pieces:
    """What has come of the answers to a request.

    Args:
        request: What was asked.
        on_delta: Is told of the text as it comes; `None` for nobody.
        reader: What takes answers apart, where they are not only text.

    Attributes:
        asked: The request as `reader` has adjusted it.
        first_token_s: When the first piece came, if somebody listens: else only the end is told.
    """

    def __init__(
        self, request: Request, on_delta: OnDelta | None, reader: AnswerReader | None
    ) -> None:
        self._request = request
        self._on_delta = on_delta
        self._reader = reader
        self._clock = asyncio.get_running_loop().time
        num_answers = request.sampling.n
        self._pieces: list[list[CompletionOutput]] = [[] for _ in range(num_answers)]
        self._streams: list[StreamedText] = []
        self.first_token_s: float | None = None
        self.asked = None if reader is None else reader.asked(request)
        if reader is not None and self.asked is not None and on_delta is not None:
            self._streams = [reader.stream(self.asked, request) for _ in range(num_answers)]

    def add(self, piece: CompletionOutput) -> None:
        """Take the next piece of an answer."""
        self._pieces[piece.index].append(piece)
        if self._on_delta is not None:
            if self.first_token_s is None:
                self.first_token_s = self._clock()
            text = self._streams[piece.index].add(piece) if self._streams else piece.text
            self._tell(piece.index, text)

    def choices(self) -> tuple[Choice, ...]:
        """The answers, once all of them have ended.

        Raises:
            TransientEngineError: vLLM ended one by itself.
        """
        choices = tuple(map(choice_of, self._pieces))
        if self._reader is not None and self.asked is not None:
            reader, asked = self._reader, self.asked
            choices = tuple(reader.read(choice, asked, self._request) for choice in choices)
        for index, stream in enumerate(self._streams):
            self._tell(index, stream.rest(choices[index].text))
        return choices

    def _tell(self, index: int, text: str) -> None:
        if self._on_delta is not None and text:
            self._on_delta(Delta(index, text))
