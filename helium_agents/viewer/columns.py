"""The shown calls as columns: lists of one kind of thing, short as JSON and quick to read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Generic, TypeVar

from helium_agents.diagnose.analyze import Paths, ready_times
from helium_agents.diagnose.guesses import guessed_by
from helium_agents.diagnose.timeline import Phases
from helium_agents.trace.run import TracedAnswer, TracedCall, TracedRun
from helium_agents.viewer.analysis import Analysis

Columns = dict[str, list[Any]]


_T = TypeVar("_T", bound=Hashable)


class Numbered(Generic[_T]):
    """What is told by its number, equal things once."""

    def __init__(self) -> None:
        self._numbers: dict[_T, int] = {}

    def add(self, each: _T) -> int:
        """The number of a thing."""
        return self._numbers.setdefault(each, len(self._numbers))

    @property
    def every(self) -> list[_T]:
        """All of them, by number."""
        return list(self._numbers)


def state_of(call: TracedCall) -> str:
    """How a call came out, in the word that the page has for it."""
    if call.error is not None:
        return "failed"
    return {"engine": "computed", "body": "computed", "earlier": "memo"}.get(
        call.source, call.source
    )


def call_columns(analysis: Analysis, names: Numbered[str]) -> tuple[Columns, list[list[int]]]:
    """The shown calls, by number; those of operators whose bodies ran are no calls of their own.

    With them comes what is waited for, which `after` names by its number: the places of calls.
    """
    run = analysis.shown
    calls = sorted(
        (call for call in run.calls if call.number in analysis.waits), key=lambda call: call.number
    )
    places = {call.number: place for place, call in enumerate(calls)}
    phases = {each.call.number: each for each in analysis.requests}
    ready_s, paths = ready_times(run), Paths(run)
    early = analysis.run.early
    inner = _first_inside(run, calls)
    columns: Columns = {}
    waits = Numbered[tuple[int, ...]]()

    def add(**values: Any) -> None:
        for name, value in values.items():
            columns.setdefault(name, []).append(value)

    for call in calls:
        answer = call.answer
        add(
            number=call.number,
            state=names.add(state_of(call)),
            label=names.add(call.label),
            path=names.add(" > ".join(paths.of(call.body))),
            body=call.body,
            item=call.item,
            leader_place=_leader_place(call, places, inner),
            model=names.add(call.model),
            error=None if call.error is None else names.add(call.error),
            **_times(call, phases.get(call.number), ready_s.get(call.number, call.asked_s)),
            early=_early(early.get(call.number)),
            attempts=call.num_attempts,
            below=call.calls_below,
            prompt=call.prompt_tokens,
            cached=call.cached_tokens,
            cacheable=analysis.cacheable.get(call.number, call.cached_tokens),
            output=call.output_tokens,
            limit=None if answer is None else answer.max_tokens,
            finish=None if answer is None else names.add(", ".join(answer.finish_reasons)),
            after=waits.add(analysis.waits[call.number]),
            inputs=[places[number] for number in call.inputs if number in places],
            answered=answer is not None,
        )
    waited = [[places[number] for number in each if number in places] for each in waits.every]
    return columns, waited


def _first_inside(run: TracedRun, calls: Sequence[TracedCall]) -> dict[int, int]:
    """The place of the first call that was made in each body, or in those inside of it."""
    found: dict[int, int] = {}
    for place, call in enumerate(calls):
        body = run.bodies.get(call.body)
        while body is not None and body.number not in found:
            found[body.number] = place
            body = run.bodies.get(body.body)
    return found


def _leader_place(
    call: TracedCall, places: Mapping[int, int], inner: Mapping[int, int]
) -> int | None:
    """Where the call is whose answer this one took; for an operator the first call in its body."""
    if call.leader == call.number:
        return None
    return places.get(call.leader, inner.get(call.leader))


def _early(guess: dict[str, Any] | None) -> tuple[float, str] | None:
    """How long a call had been computed before it was asked for, and who had guessed it."""
    return None if guess is None else (_seconds(guess["saved_s"]), guessed_by(guess["source"]))


def _times(call: TracedCall, request: Phases | None, ready_s: float) -> dict[str, Any]:
    """A call's times, and its place on the engine if it was sent to one."""
    return {
        "asked": _seconds(call.asked_s),
        "ready": _seconds(ready_s),
        "sent": None if request is None else _seconds(request.sent_s),
        "begun": None if request is None else _seconds(request.begun_s),
        "first": None if request is None else _seconds(request.first_token_s),
        "end": _seconds(call.end_s),
        "estimated": request is not None and request.is_estimated,
        "slot": None if request is None else request.slot,
    }


def item_columns(run: TracedRun) -> Columns:
    """The items that have calls or failed without any, in the order of the input."""
    with_calls = {call.item for call in run.calls}
    items = [item for item in run.items.values() if item.item in with_calls or item.error]
    items.sort(key=lambda item: item.index)
    return {
        "item": [item.item for item in items],
        "index": [item.index for item in items],
        "opened": [_seconds(item.opened_s) for item in items],
        "ended": [None if item.ended_s is None else _seconds(item.ended_s) for item in items],
        "error": [item.error for item in items],
    }


def content_of(analysis: Analysis) -> dict[str, Any]:
    """Prompts and answers, each text once; read by the page when a call is opened first."""
    texts = Numbered[str]()
    answers: dict[int, TracedAnswer] = {}
    places: dict[int, int] = {}
    of_calls: dict[int, int] = {}
    for call in analysis.shown.calls:
        if call.number in analysis.waits and call.answer is not None:
            answers.setdefault(id(call.answer), call.answer)
            of_calls[call.number] = places.setdefault(id(call.answer), len(places))
    found = []
    for answer in answers.values():
        messages = None
        if answer.messages is not None:
            messages = [(role, texts.add(text)) for role, text in answer.messages]
        found.append(
            {
                "messages": messages,
                "texts": [texts.add(text) for text in answer.texts or ()],
                "tools": answer.tool_calls,
            }
        )
    return {"answers": found, "texts": texts.every, "of_calls": of_calls}


def tool_rows(run: TracedRun, calls: Iterable[TracedCall]) -> list[dict[str, Any]]:
    """The calls of tools, of the items that some calls are of."""
    items = {call.item for call in calls}
    return [
        {**asdict(tool), "begun_s": _seconds(tool.begun_s), "end_s": _seconds(tool.end_s)}
        for tool in run.tools
        if tool.item in items
    ]


def _seconds(time_s: float) -> float:
    return round(time_s, 4)
