"""What speculation won of a traced run, and what it could have won by guesses that are all right.

Beside the run stand two that were not: one in which nothing is computed early, and that of an
oracle, which guesses every answer that may be guessed right, at once. They are made of the calls of
the run, which take as long as they took, or longer where more of them share an engine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from operator import mul
from typing import Any

from helium_agents.diagnose.analyze import short_name
from helium_agents.optimizer.right_guesses import TimedCall, row_ends
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.trace.dependencies import Step, steps_of
from helium_agents.trace.run import TracedCall, TracedRun

CANNOT = ("not shared", "never alike", "nobody")
"""Why nothing may be guessed of a call, whatever is said of it."""

_MOST_CALLS = 50_000
"""Of a longer run the first rows are looked at: it takes a second or two."""


_SOURCES = {
    "histogram": "what came there before",
    "prefix": "how the answer began",
    "tools": "which tool usually follows",
    "predict": "predict=",
}


def guessed_by(source: str) -> str:
    """Who guessed, or by what, for a person; an engine is told by its name."""
    return _SOURCES.get(source, source)


@dataclass
class GuessedSite:
    """A place in an operator where answers might be guessed.

    Args:
        operator: In whose bodies it is.
        begins: How the first prompt there begins; "" where texts were not kept.
        num_calls: Calls that were made there.
        num_right: Those of which a guess was right.
        num_wrong: Those of which none was.
        sources: Who guessed, with how often.
        reasons: Why nothing came of the others, by `WhyNoGuess`, with how often.
    """

    operator: str
    begins: str
    num_calls: int = 0
    num_right: int = 0
    num_wrong: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class OracleGap:
    """How long the rows of a run take, together, in seconds.

    Args:
        without_s: If nothing is computed early.
        taken_s: As it was.
        right_s: If every answer that may be guessed is guessed right at once.
        num_rows: How many rows were looked at.
        sites: Where answers might be guessed, the most calls first.
    """

    without_s: float
    taken_s: float
    right_s: float
    num_rows: int
    sites: Sequence[GuessedSite]

    @property
    def won_s(self) -> float:
        """What speculation won."""
        return max(0.0, self.without_s - self.taken_s)

    @property
    def possible_s(self) -> float:
        """What right guesses could win."""
        return max(self.won_s, self.without_s - self.right_s)


def oracle_gap(run: TracedRun) -> OracleGap | None:
    """The gap of a run to one that always guesses right; `None` where nothing might be guessed."""
    if not run.guessed:
        return None
    rows = _Rows(run)
    calls = list(rows.calls())
    starts = rows.starts

    def seconds(*, are_guessed: bool) -> float:
        ends = row_ends(calls, starts, rows.own_shares, are_guessed=are_guessed)
        return rows.rest_s + sum(ends) - sum(starts)

    without_s = seconds(are_guessed=False) if rows.has_early else rows.taken_s
    return OracleGap(without_s, rows.taken_s, seconds(are_guessed=True), len(starts), _sites(run))


class _Rows:
    """The calls of a run by row, as far as they are looked at.

    Args:
        run: The run.

    Attributes:
        starts: When each row began.
        own_shares: By engine, what its calls do not share with others; see `row_ends`.
        taken_s: How long the rows took, together.
        rest_s: What of that came after their last calls.
        has_early: Whether anything was there early.
    """

    def __init__(self, run: TracedRun) -> None:
        self._run = run
        self._early_s: Counter[int] = Counter()
        for each in run.speculated:
            if each["is_used"]:
                self._early_s[each["call"]] += each["saved_s"]
        by_row: dict[tuple[str, int], list[Step]] = defaultdict(list)
        for step in steps_of(run, with_operators=True):
            by_row[self._row(step.call)].append(step)
        self._rows: list[list[Step]] = []
        self.starts: list[float] = []
        self.taken_s, self.rest_s, num_calls = 0.0, 0.0, 0
        self.has_early = bool(self._early_s)
        for (_, number), steps in by_row.items():
            num_calls += len(steps)
            if self._rows and num_calls > _MOST_CALLS:
                break
            item = run.items.get(number) if steps[0].call.item is not None else None
            first_s = min(step.call.asked_s for step in steps)
            self._rows.append(steps)
            self.starts.append(first_s if item is None else item.opened_s)
            end_s = last_s = max(step.call.end_s for step in steps)
            if item is not None and item.ended_s is not None:
                end_s = max(last_s, item.ended_s)
            self.taken_s += end_s - self.starts[-1]
            self.rest_s += end_s - last_s
        computed: dict[str, list[TracedCall]] = defaultdict(list)
        for step in (step for steps in self._rows for step in steps):
            if step.call.is_computed:
                computed[step.call.model].append(step.call)
        self._beside = {
            model: _Beside(list(map(self._span, calls))) for model, calls in computed.items()
        }
        self.own_shares = {
            model: _own_share(run.engines[model].cost, calls)
            for model, calls in computed.items()
            if model in run.engines
        }
        self._effects = _effects(run)

    def calls(self) -> Iterator[TimedCall]:
        """Their calls, row by row."""
        place = 0
        for row, steps in enumerate(self._rows):
            places = {step.call.number: at for at, step in enumerate(steps, place)}
            place += len(steps)
            yield from (self._timed(row, step, places) for step in steps)

    def _timed(self, row: int, step: Step, places: Mapping[int, int]) -> TimedCall:
        """A call; other rows begin when they began, so that nothing is said of waiting for them."""
        call = step.call
        after = tuple(number for number in step.after if number in places)
        pause_s = step.pause_s if after else max(0.0, call.asked_s - self.starts[row])
        beside = self._beside.get(call.model) if call.is_computed else None
        return TimedCall(
            row=row,
            after=tuple(places[number] for number in after),
            guessable=frozenset(
                places[number] for number in after if self._is_guessable(number, call)
            ),
            pause_s=pause_s,
            seconds=self._early_s[call.number] + call.end_s - call.asked_s,
            engine="" if beside is None else call.model,
            beside=1.0 if beside is None else beside.mean(*self._span(call)),
        )

    def _is_guessable(self, number: int, later: TracedCall) -> bool:
        """Whether a call need not wait for another if that is guessed right."""
        known, source = self._run.guessed.get(number), self._run.by_number[number]
        if known is None or known["why"] in CANNOT or source.body not in self._around(later):
            return False
        return not any(
            source.end_s <= begun_s <= later.asked_s for begun_s in self._effects[source.body]
        )

    def _around(self, call: TracedCall) -> Iterator[int]:
        """The numbers of the bodies that a call is in, innermost first."""
        body = call.body
        while body:
            yield body
            above = self._run.bodies.get(body)
            body = 0 if above is None else above.body

    def _row(self, call: TracedCall) -> tuple[str, int]:
        """The item of a call, or else the outermost body."""
        if call.item is not None and call.item in self._run.items:
            return "item", call.item
        return "body", [call.number, *self._around(call)][-1]

    def _span(self, call: TracedCall) -> tuple[float, float]:
        """When a call was computed, about: what was early had been there at once."""
        return call.asked_s - self._early_s[call.number], call.end_s


def _own_share(costs: Mapping[str, float] | None, calls: Sequence[TracedCall]) -> float:
    """What calls do not share with those that run beside them, of the time they take alone."""
    if costs is None:
        return 0.0
    cost, own_s, shared_s = StepCost.from_dict(costs), 0.0, 0.0
    for call in calls:
        context_s = cost.context_s * (call.prompt_tokens + call.output_tokens / 2)
        new_tokens = call.prompt_tokens - call.cached_tokens
        own_s += cost.prefill_seconds(new_tokens, call.cached_tokens)
        own_s += call.output_tokens * (cost.decode_s + context_s)
        shared_s += call.output_tokens * cost.step_s
    return own_s / (own_s + shared_s) if own_s else 0.0


class _Beside:
    """How many calls of an engine ran at once.

    Args:
        spans: When each of them began and ended.
    """

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        begins, ends = zip(*spans, strict=True)
        changes = sorted([*((time_s, 1) for time_s in begins), *((time_s, -1) for time_s in ends)])
        self._times = [time_s for time_s, _ in changes]
        self._numbers = list(accumulate(change for _, change in changes))
        lengths = (after_s - before_s for before_s, after_s in pairwise(self._times))
        self._sums: list[float] = [0.0, *accumulate(map(mul, self._numbers, lengths))]

    def mean(self, begin_s: float, end_s: float) -> float:
        """How many did in a while, on average."""
        if end_s <= begin_s:
            return 1.0
        return max(1.0, (self._sum(end_s) - self._sum(begin_s)) / (end_s - begin_s))

    def _sum(self, time_s: float) -> float:
        """Of their seconds until then."""
        last = bisect_right(self._times, time_s) - 1
        rest_s: float = self._numbers[last] * (time_s - self._times[last])
        return self._sums[last] + rest_s


def _effects(run: TracedRun) -> Mapping[int, list[float]]:
    """By body, when tools that are no pure operators began: a guess ends where it meets one."""
    guessed = {run.by_number[number].body for number in run.guessed if number in run.by_number}
    operators: dict[int, list[TracedCall]] = defaultdict(list)
    for call in run.calls:
        if call.kind == "operator" and call.body in guessed:
            operators[call.body].append(call)
    found: dict[int, list[float]] = defaultdict(list)
    for tool in run.tools:
        if tool.body in guessed and not any(
            tool.begun_s <= call.asked_s and call.end_s <= tool.end_s
            for call in operators[tool.body]
        ):
            found[tool.body].append(tool.begun_s)
    return found


def _sites(run: TracedRun) -> list[GuessedSite]:
    found: dict[str, GuessedSite] = {}
    for number, guess in run.guessed.items():
        call = run.by_number.get(number)
        if call is None:
            continue
        site = found.get(guess["site"])
        if site is None:
            name = short_name(run.caller(call)) or "calls outside of operators"
            site = found[guess["site"]] = GuessedSite(name, _beginning(call))
        _count(site, guess)
    return sorted(found.values(), key=lambda site: -site.num_calls)


def _count(site: GuessedSite, guess: Mapping[str, Any]) -> None:
    site.num_calls += 1
    site.num_right += guess["is_right"] is True
    site.num_wrong += guess["is_right"] is False
    for counts, kind in ((site.sources, guess["source"]), (site.reasons, guess["why"])):
        if kind:
            counts[kind] = counts.get(kind, 0) + 1


def _beginning(call: TracedCall) -> str:
    """How what was asked last in a prompt begins."""
    if call.kind == "operator":
        return call.label
    messages = None if call.answer is None else call.answer.messages
    if not messages:
        return ""
    text = " ".join(messages[-1][1].split())
    return text if len(text) <= 40 else f"{text[:37]}..."
