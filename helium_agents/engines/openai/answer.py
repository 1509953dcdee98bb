"""The pages of one answer, all of it or a stream's, as a completion."""

from __future__ import annotations

from collections.abc import Iterator

from helium_agents.engines.engine import (
    Choice,
    Completion,
    Delta,
    FinishReason,
    Request,
    WrittenCall,
)
from helium_agents.engines.openai.failures import TryAgain
from helium_agents.engines.openai.page import Called, Page, Usage
from helium_agents.errors import EngineError, RequestError, TransientEngineError

_REASONS: dict[str, FinishReason] = {
    "length": "length",
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "repetition": "stop",
    "tool_calls": "stop",
}


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
        self._refusals: list[str] = [""] * num_choices
        self._reasonings: list[str] = [""] * num_choices
        self._calls: list[list[WrittenCall]] = [[] for _ in range(num_choices)]
        self._reasons: list[str | None] = [None] * num_choices
        self._usage = Usage()
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
            self._refusals[piece.index] += piece.refusal
            self._reasonings[piece.index] += piece.reasoning
            for call in piece.calls:
                _add_call(self._calls[piece.index], call)
            self._reasons[piece.index] = piece.finish_reason or self._reasons[piece.index]
            if piece.content:
                yield Delta(piece.index, piece.content)

    def completion(self, first_token_s: float | None) -> Completion:
        """The answer, once all pages are there.

        Raises:
            RequestError: The server refused to answer.
            EngineError: It is not what was asked.
            TransientEngineError: The server ended it by itself, or has not ended it.
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
            cached_tokens=0 if details is None else min(details.cached_tokens, usage.prompt_tokens),
            first_token_s=first_token_s,
            prompt_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
        )

    def _choice(self, index: int) -> Choice:
        said, most = self._reasons[index], self._request.max_tokens
        if said is None:
            raise self._unfinished()
        if said == "content_filter":
            raise RequestError(f"{self._place} ended the answer by its content filter")
        if said in ("abort", "error"):
            raise TransientEngineError(f"{self._place} did not finish the answer ({said})")
        if said.lower() not in _REASONS:
            raise EngineError(f"{self._place} ended the answer for an unknown reason: {said}")
        if self._refusals[index]:
            raise RequestError(f"{self._place} refuses to answer: {self._refusals[index]}")
        reason, ids = _REASONS[said.lower()], tuple(self._token_ids[index])
        if reason == "length" and ids and len(ids) < most:
            raise EngineError(
                f"{self._place} ended an answer after {len(ids)} tokens, but max_tokens is {most}: "
                "it has a limit of its own (vLLM: start it with --generation-config vllm)"
            )
        text, reasoning = "".join(self._texts[index]), self._reasonings[index] or None
        return Choice(text, ids, reason, reasoning, tuple(self._calls[index]))

    def _unfinished(self) -> EngineError:
        """The error for an answer whose end has not come."""
        num_asked, num_ended = len(self._reasons), sum(map(bool, self._reasons))
        if num_ended and not any(
            text for text, reason in zip(self._texts, self._reasons, strict=True) if not reason
        ):
            return EngineError(
                f"{self._place} gave {num_ended} of {num_asked} answers: it may not know n=; make "
                "several calls in its place"
            )
        return TryAgain(f"{self._place} broke off in the middle of an answer")

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


def _add_call(calls: list[WrittenCall], came: Called) -> None:
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
