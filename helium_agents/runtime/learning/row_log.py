"""The row log: what an open row has asked of engines so far, call by call.

A plain program does not say what depends on what. What can be seen is the order: a call was asked
when certain others of its row had been answered.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import xxhash

from helium_agents.engines.engine import Completion, Request
from helium_agents.optimizer.profile import BLOCK_TOKENS, Runs, SeenCall, SeenRow

_BLOCK_BYTES = BLOCK_TOKENS * array("I").itemsize
_MOST_CALLS, _MOST_BLOCKS = 512, 65_536
"""A row with more is not kept whole."""


@dataclass(slots=True)
class LoggedCall:
    """A call of a row.

    Args:
        site: Where it was made.
        turn: How often the row had called the site before.
        pause_s: How long nothing of the row had been on its way; `None` where something was, or it
            is the first call.
        num_before: Calls of the row that had been answered.
        held_tokens: Tokens of its prompt with which earlier ones of the row begin, with their
            answers, in whole blocks; 0 where the row is not kept.
        prompt: The blocks of its prompt.
        answer: Those that its answer made whole.
        output_tokens: Of its answer.
        engine: Which of the session's engines it asked.
        asked_after_s: Seconds from the last answer of the row; 0 where there is none.
    """

    site: str
    turn: int
    pause_s: float | None
    num_before: int
    held_tokens: int = 0
    prompt: Runs = ()
    answer: Runs = ()
    output_tokens: int = 0
    engine: int = 0
    asked_after_s: float = 0.0


class RowLog:
    """The calls of one row.

    Args:
        is_kept: Whether the row is to be kept whole, with its prompts.

    Attributes:
        num_calls: That were answered.
        num_by_site: Calls by where they were made.
        pause_s: Seconds between its calls in which none was on its way.
        service_s: Seconds that engines took.
        is_partial: Whether some of its calls are not in it, since an earlier session answered them.
    """

    def __init__(self, *, is_kept: bool) -> None:
        self.num_calls = 0
        self.num_by_site: Counter[str] = Counter()
        self.pause_s = self.service_s = 0.0
        self.is_partial = False
        self._is_kept = is_kept
        self._running: dict[Request, LoggedCall] = {}
        self._idle_since_s: float | None = None
        self._answered_s: float | None = None
        self._asked: list[tuple[LoggedCall, int]] = []  # with the tokens of the prompt, if kept
        self._answered: list[LoggedCall] = []  # as their answers came, if kept
        self._numbers: dict[bytes, int] = {}  # of the blocks

    def ask(self, request: Request, site: str, now_s: float, engine: int = 0) -> LoggedCall:
        """A call is asked."""
        pause_s = None
        if not self._running and self._idle_since_s is not None:
            pause_s = now_s - self._idle_since_s
            self.pause_s += pause_s
        turn, num_before = self.num_by_site[site], len(self._answered)
        after_s = 0.0 if self._answered_s is None else now_s - self._answered_s
        call = LoggedCall(site, turn, pause_s, num_before, engine=engine, asked_after_s=after_s)
        self.num_by_site[site] += 1
        self._running[request] = call
        if self._is_kept:
            prompt = request.prompt_token_ids
            num_known = len(self._numbers)
            numbers = self._number(prompt)
            num_held = next((at for at, it in enumerate(numbers) if it >= num_known), len(numbers))
            call.held_tokens = num_held * BLOCK_TOKENS
            call.prompt = _runs(numbers)
            self._asked.append((call, len(prompt)))
            if len(self._asked) > _MOST_CALLS or len(self._numbers) > _MOST_BLOCKS:
                self._is_kept = False
                self._asked, self._answered, self._numbers = [], [], {}
        return call

    def end(
        self, request: Request, completion: Completion | None, sent_s: float | None, now_s: float
    ) -> LoggedCall | None:
        """A call has ended, after it was sent; with no completion it failed, or was cancelled."""
        call = self._running.pop(request, None)
        if call is None:
            return None
        if not self._running:
            self._idle_since_s = now_s
        if completion is None or sent_s is None:
            self.num_by_site[call.site] -= 1
            return call
        self.num_calls += 1
        self._answered_s = now_s
        self.service_s += now_s - sent_s
        num_choices = max(1, len(completion.choices))
        call.output_tokens = completion.output_tokens // num_choices
        if self._is_kept:
            self._answered.append(call)
            if completion.choices:
                prompt, answer = request.prompt_token_ids, completion.choices[0].token_ids
                num_prompt = len(prompt) // BLOCK_TOKENS
                call.answer = _runs(self._number([*prompt, *answer])[num_prompt:])
        return call

    def place(self, request: Request) -> tuple[str, int] | None:
        """Where a call that has not ended was made, and how often the row had called it before."""
        call = self._running.get(request)
        return None if call is None else (call.site, call.turn)

    def seen(self) -> SeenRow | None:
        """All of the row; `None` where it is not kept, or no call was answered."""
        places = {id(call): place for place, call in enumerate(self._in_order())}
        if not places:
            return None
        before = {id(call): call.num_before for call in self._answered}
        calls = []
        for call, prompt_tokens in self._asked:
            if id(call) in before:
                inputs = sorted(places[id(it)] for it in self._latest_before(call))
                calls.append(
                    SeenCall(
                        call.site,
                        tuple(inputs),
                        prompt_tokens,
                        call.output_tokens,
                        call.prompt,
                        call.answer,
                        call.engine,
                        call.asked_after_s,
                    )
                )
        return SeenRow(tuple(calls), b"".join(self._numbers))

    def _in_order(self) -> Iterator[LoggedCall]:
        answered = {id(call) for call in self._answered}
        return (call for call, _ in self._asked if id(call) in answered)

    def _latest_before(self, call: LoggedCall) -> Iterator[LoggedCall]:
        """The calls that were answered before one was asked, but for those that came before them.

        Calls that were answered before any of these was asked are the first few in the order of
        answers, so that a number says which.
        """
        num_covered = 0
        for other in self._answered[: call.num_before]:
            num_covered = max(num_covered, other.num_before)
        yield from self._answered[num_covered : call.num_before]

    def _number(self, tokens: Sequence[int]) -> list[int]:
        """The numbers of a sequence's whole blocks; new ones get the next numbers."""
        data = array("I", tokens).tobytes()
        digest, numbers, found = b"", self._numbers, []
        for end in range(_BLOCK_BYTES, len(data) + 1, _BLOCK_BYTES):
            digest = xxhash.xxh3_64_digest(digest + data[end - _BLOCK_BYTES : end])
            found.append(numbers.setdefault(digest, len(numbers)))
        return found


def _runs(numbers: Sequence[int]) -> Runs:
    """Numbers in order as ranges."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = found[-1][0], number + 1
        else:
            found.append((number, number + 1))
    return tuple(found)
