"""Two traced runs side by side: what became faster, what was computed again, and why.

Calls of both are one where the row, the operators around it and its place among their calls are
the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from helium_agents.diagnose.analyze import Paths, ready_times
from helium_agents.diagnose.differences import Difference, differences
from helium_agents.diagnose.provenance import Component, MessageComponent, Provenance
from helium_agents.trace.run import TracedCall, TracedRun

_MOST_CHANGES = 20
_MOST_REASONS = 12
_LEAST_CHANGE_S = 1e-3


@dataclass(frozen=True)
class OperatorChange:
    """The model calls of an operator: first the earlier run's figure, then the later one's.

    Args:
        name: The operator's path, outermost first.
        calls: Model calls.
        computed: Those that an engine computed.
        read_tokens: Prompt tokens that it had not in its cache.
        output_tokens: Tokens of its answers.
        engine_s: Seconds on engines, of all together.
    """

    name: str
    calls: tuple[int, int]
    computed: tuple[int, int]
    read_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    engine_s: tuple[float, float]


@dataclass(frozen=True)
class Again:
    """Calls that the earlier run had answered and the later one computed, for one reason.

    Args:
        operator: In whose bodies.
        reason: Why, in a sentence.
        number: How many.
        seconds: What they took on engines, together.
        example: The number of one of them.
        differences: In what that one differs.
    """

    operator: str
    reason: str
    number: int
    seconds: float
    example: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class CallChange:
    """A call that both runs computed.

    Args:
        calls: Its numbers.
        seconds: From when it was ready until its answer was there.
        row: The row's position in the input; `None` outside of any.
        operator: In whose body.
    """

    calls: tuple[int, int]
    seconds: tuple[float, float]
    row: int | None
    operator: str


@dataclass(frozen=True)
class Comparison:
    """What two runs differ in."""

    operators: list[OperatorChange]
    reasons: list[Again]
    changes: list[CallChange]


_Place = tuple[int | None, tuple[str, ...], int]


def compare_runs(before: TracedRun, after: TracedRun) -> Comparison:
    """What became of an earlier run in a later one."""
    old, new = _by_place(before), _by_place(after)
    return Comparison(_operators(old, new), _again(old, new), _changes(before, after, old, new))


def _by_place(run: TracedRun) -> dict[_Place, TracedCall]:
    paths = Paths(run)
    seen: Counter[tuple[int | None, tuple[str, ...]]] = Counter()
    found = {}
    for call in sorted(run.calls, key=lambda call: call.number):
        if call.kind == "llm":
            item = run.items.get(call.item) if call.item is not None else None
            where = (None if item is None else item.index, paths.of(call.body))
            found[*where, seen[where]] = call
            seen[where] += 1
    return found


def _operators(
    old: Mapping[_Place, TracedCall], new: Mapping[_Place, TracedCall]
) -> list[OperatorChange]:
    sides: dict[tuple[str, ...], tuple[list[TracedCall], list[TracedCall]]] = defaultdict(
        lambda: ([], [])
    )
    for side, calls in enumerate((old, new)):
        for (_, path, _), call in calls.items():
            sides[path][side].append(call)

    def change(path: tuple[str, ...]) -> OperatorChange:
        def both(figure: Callable[[TracedCall], float]) -> tuple[float, float]:
            one, other = (sum(figure(c) for c in side if c.is_computed) for side in sides[path])
            return one, other

        def numbers(figure: Callable[[TracedCall], int]) -> tuple[int, int]:
            one, other = both(figure)
            return int(one), int(other)

        return OperatorChange(
            " > ".join(path) or "(no operator)",
            (len(sides[path][0]), len(sides[path][1])),
            numbers(lambda call: 1),
            numbers(lambda call: call.prompt_tokens - call.cached_tokens),
            numbers(lambda call: call.output_tokens),
            both(lambda call: call.end_s - (call.sent_s or call.asked_s)),
        )

    return [change(path) for path in sorted(sides)]


def _again(old: Mapping[_Place, TracedCall], new: Mapping[_Place, TracedCall]) -> list[Again]:
    groups: dict[tuple[str, str], list[tuple[TracedCall, tuple[Difference, ...]]]] = {}
    for place, call in new.items():
        known = old.get(place)
        if known is None or known.error is not None or not call.is_computed:
            continue
        reason, found = _reason(known, call)
        operator = place[1][-1] if place[1] else ""
        groups.setdefault((operator, reason), []).append((call, found))
    reasons = [
        Again(
            operator,
            reason,
            len(calls),
            sum(call.end_s - (call.sent_s or call.asked_s) for call, _ in calls),
            calls[0][0].number,
            calls[0][1],
        )
        for (operator, reason), calls in groups.items()
    ]
    return sorted(reasons, key=lambda each: -each.seconds)[:_MOST_REASONS]


def _reason(known: TracedCall, call: TracedCall) -> tuple[str, tuple[Difference, ...]]:
    """Why a call was computed though the earlier run had one in its place."""
    if known.answer is None:
        return _REMEMBERED, ()
    stored, asked = _provenance(known), _provenance(call)
    if stored is None or asked is None:
        if call.answer is not None and known.answer.prompt == call.answer.prompt:
            return _ASKED_THE_SAME, ()
        return _UNKNOWN, ()
    found = differences(stored, asked)
    if not found:
        return _ASKED_THE_SAME, ()
    fields = ", ".join(f"the {each.field}" for each in found)
    verb = "differs" if len(found) == 1 else "differ"
    return f"{fields} {verb} from what was asked before", found


_REMEMBERED = (
    "it was remembered before, so that the trace does not tell what was asked; now it was not: "
    "there was no memo or another one, or something else was asked"
)
_UNKNOWN = "the texts of one of them were not kept, so that nobody knows in what they differ"
_ASKED_THE_SAME = (
    "the same was asked as before, and not remembered: there was no memo or another one, or these "
    "are samples without a seed, or share=False"
)


def _provenance(call: TracedCall) -> Provenance | None:
    """What a traced call asked; `None` where its text was not kept."""
    if call.answer is None or call.answer.messages is None:
        return None
    return Provenance(
        kind="llm",
        label=call.label,
        settings={
            "model": Component(call.model),
            "max_tokens": Component(str(call.answer.max_tokens)),
        },
        messages=tuple(MessageComponent(role, text) for role, text in call.answer.messages),
    )


def _changes(
    before: TracedRun,
    after: TracedRun,
    old: Mapping[_Place, TracedCall],
    new: Mapping[_Place, TracedCall],
) -> list[CallChange]:
    ready_before, ready_after = ready_times(before), ready_times(after)
    found = []
    for place, call in new.items():
        known = old.get(place)
        if known is not None and known.is_computed and call.is_computed:
            took = (
                known.end_s - ready_before[known.number],
                call.end_s - ready_after[call.number],
            )
            if abs(took[0] - took[1]) >= _LEAST_CHANGE_S:
                operator = place[1][-1] if place[1] else ""
                found.append(CallChange((known.number, call.number), took, place[0], operator))
    found.sort(key=lambda each: -abs(each.seconds[0] - each.seconds[1]))
    return found[:_MOST_CHANGES]
