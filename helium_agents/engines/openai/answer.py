"""What a server answers: its JSON, whole or in pieces, as a completion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, Field

from helium_agents.engines.engine import (
    Choice,
    Completion,
    Delta,
    FinishReason,
    Request,
    WrittenCall,
)
from helium_agents.errors import EngineError, RequestError, TransientEngineError

_REASONS: dict[str, FinishReason] = {
    "length": "length",
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "repetition": "stop",
    "tool_calls": "stop",
}


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _Called(BaseModel):
    """A call of a tool or, in a stream, what comes of the one at `index`."""

    index: int | None = None
    id: str | None = None
    function: _Function = Field(default_factory=_Function)


class _Message(BaseModel):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Called] | None = None


class _Piece(BaseModel):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None

    @property
    def content(self) -> str:
        said = self.message or self.delta
        return self.text or (said.content if said is not None else None) or ""

    @property
    def reasoning(self) -> str:
        said = self.message or self.delta
        return "" if said is None else said.reasoning or said.reasoning_content or ""

    @property
    def calls(self) -> list[_Called]:
        if self.message is not None:
            whole = enumerate(self.message.tool_calls or ())
            return [call.model_copy(update={"index": at}) for at, call in whole]
        return [] if self.delta is None else self.delta.tool_calls or []


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _Details | None = None


class Page(BaseModel):
    """One JSON object of an answer: all of it, or a piece of a stream."""

    choices: list[_Piece] = Field(default_factory=list)
    usage: _Usage | None = None
    system_fingerprint: str | None = None
    prompt_token_ids: list[int] | None = None
    error: dict[str, Any] | None = None

    def hide(self, hide: Callable[[str], str]) -> None:
        """Take the key out of what is kept or shown, but for the answer: that is as it came."""
        if self.system_fingerprint is not None:
            self.system_fingerprint = hide(self.system_fingerprint)
        for piece in self.choices:
            if piece.finish_reason is not None:
                piece.finish_reason = hide(piece.finish_reason)


class Gathered:
    """The pages of one answer.

    Args:
        request: What was asked.
        place: The server, for people.
    """

    def __init__(self, request: Request, place: str) -> None:
        self._request = request
        self._place = place
        num_choices = request.sampling.n
        self._texts: list[list[str]] = [[] for _ in range(num_choices)]
        self._token_ids: list[list[int]] = [[] for _ in range(num_choices)]
        self._reasonings: list[str] = [""] * num_choices
        self._calls: list[list[WrittenCall]] = [[] for _ in range(num_choices)]
        self._reasons: list[str | None] = [None] * num_choices
        self._usage = _Usage()
        self.fingerprint: str | None = None

    def add(self, page: Page) -> Iterator[Delta]:
        """Take a page; gives what it adds to the texts.

        Raises:
            EngineError: The server computes another prompt than was sent, or more answers.
        """
        self.fingerprint = page.system_fingerprint or self.fingerprint
        self._usage = page.usage or self._usage
        for piece in page.choices:
            if not 0 <= piece.index < len(self._texts):
                raise EngineError(
                    f"{self._place} gave more answers than the {len(self._texts)} that were asked"
                )
            self._check_prompt(piece.prompt_token_ids or page.prompt_token_ids)
            self._texts[piece.index].append(piece.content)
            self._token_ids[piece.index] += piece.token_ids or ()
            self._reasonings[piece.index] += piece.reasoning
            for call in piece.calls:
                _add_call(self._calls[piece.index], call)
            self._reasons[piece.index] = piece.finish_reason or self._reasons[piece.index]
            if piece.content:
                yield Delta(piece.index, piece.content)

    def completion(self, first_token_s: float | None) -> Completion:
        """The answer, once all pages are there.

        Raises:
            EngineError: It is not what was asked.
            TransientEngineError: The server ended it by itself.
        """
        usage, sent = self._usage, self._request.prompt_token_ids
        if sent and usage.prompt_tokens not in (0, len(sent)):
            raise EngineError(
                f"{self._place} counts {usage.prompt_tokens} tokens in a prompt of {len(sent)}: "
                "it computes another prompt than was sent"
            )
        details = usage.prompt_tokens_details
        return Completion(
            tuple(map(self._choice, range(len(self._texts)))),
            cached_tokens=(details.cached_tokens or 0) if details is not None else 0,
            first_token_s=first_token_s,
            prompt_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens or 0,
        )

    def _choice(self, index: int) -> Choice:
        said, most = self._reasons[index], self._request.max_tokens
        if said == "content_filter":
            raise RequestError(f"{self._place} ended the answer by its content filter")
        if said in (None, "abort", "error"):
            raise TransientEngineError(f"{self._place} did not finish the answer ({said})")
        if said not in _REASONS:
            raise EngineError(f"{self._place} ended the answer for an unknown reason: {said}")
        reason, ids = _REASONS[said], tuple(self._token_ids[index])
        if reason == "length" and ids and len(ids) < most:
            raise EngineError(
                f"{self._place} ended an answer after {len(ids)} tokens, but max_tokens is {most}: "
                "it has a limit of its own (vLLM: start it with --generation-config vllm)"
            )
        text, reasoning = "".join(self._texts[index]), self._reasonings[index] or None
        return Choice(text, ids, reason, reasoning, tuple(self._calls[index]))

    def _check_prompt(self, seen: list[int] | None) -> None:
        sent = list(self._request.prompt_token_ids)
        if not sent or seen is None or seen == sent:
            return
        pairs = enumerate(zip(sent, seen, strict=False))
        first = next(
            (at for at, (ours, theirs) in pairs if ours != theirs), min(map(len, (sent, seen)))
        )
        raise EngineError(
            f"{self._place} computes another prompt than was sent: {len(seen)} tokens in place of "
            f"{len(sent)}, different from token {first} on"
        )


def _add_call(calls: list[WrittenCall], came: _Called) -> None:
    """Take a call, or what comes next of one, which its index tells or else its being the last."""
    at = came.index
    if at is None:
        at = len(calls) if came.id is not None else len(calls) - 1
    if not 0 <= at < len(calls):
        at = len(calls)
        calls.append(WrittenCall("", ""))
    name, arguments = calls[at]
    function = came.function
    calls[at] = WrittenCall(function.name or name, arguments + (function.arguments or ""))
