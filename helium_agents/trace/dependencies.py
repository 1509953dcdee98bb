"""What each model call of a traced run waited for, and how long it then took to be asked.

Declared inputs are known. What a plain `await` waits for is not, but it can be told from times: a
call can depend on what had ended when it was asked, in its own body and in those around it. A body
inside of those counts as one thing, from the first call in it to the last. So coroutines that are
no operators and run side by side in one body seem to wait for one another now and then.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from helium_agents.trace.run import TracedAnswer, TracedCall, TracedRun


@dataclass(frozen=True)
class Step:
    """A call that was asked for, though its answer may be another's.

    Args:
        call: The call.
        after: The numbers of the calls that it waited for.
        declared: Those of them whose Refs went into its prompt.
        pause_s: From when these were there, or else its item was opened, until it was asked.
    """

    call: TracedCall
    after: tuple[int, ...]
    declared: tuple[int, ...]
    pause_s: float

    @property
    def answer(self) -> TracedAnswer:
        """What an engine was asked and answered."""
        assert self.call.answer is not None
        return self.call.answer


def steps_of(run: TracedRun, *, with_operators: bool = False) -> list[Step]:
    """The model calls that an engine answered, or would have, in the order of their numbers.

    Calls that were remembered took no time and are left out, as are those that failed.

    Args:
        run: The run.
        with_operators: Also calls of pure operators in whose bodies no others were made; these
            have no answer.
    """
    is_step = partial(_is_timed, run) if with_operators else _is_answered
    spans = _Spans(run, is_step)
    begin_s = min((call.asked_s for call in run.calls), default=0.0)
    found = []
    for call in sorted(filter(is_step, run.calls), key=lambda call: call.number):
        declared = tuple(
            number
            for number in call.inputs
            if number in run.by_number and is_step(run.by_number[number])
        )
        after = spans.waited_for(call) | set(declared)
        if after:
            start_s = max(run.by_number[number].end_s for number in after)
        elif call.item in run.items and call.item is not None:
            start_s = run.items[call.item].opened_s
        else:
            start_s = begin_s
        pause_s = max(0.0, call.asked_s - start_s)
        found.append(Step(call, tuple(sorted(after)), declared, pause_s))
    return found


def waits_of(run: TracedRun) -> dict[int, tuple[int, ...]]:
    """What each call waited for, by number: also those that were remembered or failed.

    Calls of operators whose bodies ran are not in it: what was called in these is. What was
    remembered took no time, by which to tell what waited for it: declared inputs alone are known.
    """
    spans = _Spans(run, _takes_time)
    shown = {call.number: call for call in run.calls if call.kind == "llm" or call.source != "body"}
    found: dict[int, tuple[int, ...]] = {}
    known: dict[tuple[int, ...], tuple[int, ...]] = {}  # many wait for the same many
    for number, call in shown.items():
        after = {each for each in call.inputs if each in shown}
        if _takes_time(call):
            after |= spans.waited_for(call)
        waited = tuple(sorted(after))
        found[number] = known.setdefault(waited, waited)
    return found


def _takes_time(call: TracedCall) -> bool:
    is_shared = call.source in ("merged", "joined")
    return is_shared or (call.kind == "llm" and call.source == "engine")


def _is_timed(run: TracedRun, call: TracedCall) -> bool:
    is_run = call.kind == "operator" and call.source == "body" and call.error is None
    return (is_run and call.number not in run.bodies) or _is_answered(call)


def _is_answered(call: TracedCall) -> bool:
    is_asked = call.source in ("engine", "merged", "joined")
    return call.kind == "llm" and is_asked and call.error is None and call.answer is not None


@dataclass
class _Span:
    """A call, or all that happened in a body."""

    begin_s: float = float("inf")
    end_s: float = 0.0


class _Level:
    """What was called in one body, in the order in which it ended."""

    def __init__(self, numbers: Iterable[int], spans: dict[int, _Span]) -> None:
        self._numbers = sorted(numbers, key=lambda number: spans[number].end_s)
        self._spans = spans
        self._ends = [spans[number].end_s for number in self._numbers]
        begins = (spans[number].begin_s for number in self._numbers)
        self._latest_begins = list(accumulate(begins, max))

    def ended(self, number: int) -> list[int]:
        """What a call, or the first one in a body, found ended, without what that had waited for.

        Args:
            number: The call or body, which is in this level too.
        """
        begin_s = self._spans[number].begin_s
        found = self._last(bisect_right(self._ends, begin_s))
        return [each for each in found if each != number]

    @property
    def last(self) -> list[int]:
        """What nothing else found ended."""
        return self._last(len(self._numbers))

    def _last(self, num_ended: int) -> list[int]:
        """Of those that ended first: what none of them found ended."""
        found = []
        latest_s = self._latest_begins[num_ended - 1] if num_ended else 0.0
        while num_ended and self._ends[num_ended - 1] > latest_s:
            num_ended -= 1
            found.append(self._numbers[num_ended])
        return found


class _Spans:
    """The calls and bodies of a run, each with what it is in.

    Args:
        run: The run.
        is_step: Which calls count.
    """

    def __init__(self, run: TracedRun, is_step: Callable[[TracedCall], bool]) -> None:
        self._run = run
        self._is_step = is_step
        self._spans: dict[int, _Span] = defaultdict(_Span)
        self._bodies = {call.number: call.body for call in run.calls}
        self._bodies |= {body.number: body.body for body in run.bodies.values()}
        members: dict[tuple[int, int | None], set[int]] = defaultdict(set)
        for call in run.calls:
            if self._step_of(call) is None and not self._leading_body(call):
                continue
            number = call.number
            while number:
                span = self._spans[number]
                span.begin_s = min(span.begin_s, call.asked_s)
                span.end_s = max(span.end_s, call.end_s)
                body = self._bodies.get(number, 0)
                members[body, call.item if not body else None].add(number)
                number = body
        self._levels = {key: _Level(numbers, self._spans) for key, numbers in members.items()}

    def waited_for(self, call: TracedCall) -> set[int]:
        """The steps that a call waited for, those in the bodies of its inputs too."""
        found = self.before(call)
        for number in call.inputs:
            found |= self.leaves(number)
        return found

    def before(self, call: TracedCall) -> set[int]:
        """The steps that had ended when a call was asked, in its body and those around it."""
        found: set[int] = set()
        number = call.number
        while number:
            body = self._bodies.get(number, 0)
            for other in self._levels[body, call.item if not body else None].ended(number):
                found |= self.leaves(other)
            number = body
        return found

    def leaves(self, number: int) -> set[int]:
        """The steps that a call is, or those that were last in a body."""
        found: set[int] = set()
        stack = [number]
        while stack:
            number = stack.pop()
            call = self._run.by_number.get(number)
            step = None if call is None else self._step_of(call)
            if step is not None:
                found.add(step)
                continue
            if call is not None:
                number = self._leading_body(call)
            level = self._levels.get((number, None)) if number else None
            if level is not None:
                stack += level.last
        return found

    def _step_of(self, call: TracedCall) -> int | None:
        """The step that a model call is, or whose answer it took."""
        if self._is_step(call):
            return call.number
        leader = self._run.by_number.get(call.leader)
        if call.kind == "llm" and call.leader != call.number and leader is not None:
            return leader.number if self._is_step(leader) else None
        return None

    def _leading_body(self, call: TracedCall) -> int:
        """The number of the call of a pure operator that ran for a call of it; 0 if none did."""
        is_run = call.kind == "operator" and call.source in ("body", "merged", "joined")
        return call.leader if is_run and call.leader in self._run.bodies else 0
