"""A traced run as Chrome trace events, which Perfetto's viewer opens.

One process has the rows, each with its operators, calls and tools nested; one for each model has
its engines' requests by slot, and counters. Arrows tell which request a call became, and whose
answer a merged call took. Times are in microseconds, to the nanosecond; spans of a thread nest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from helium_agents.diagnose.prefixes import Prefixes, prefixes
from helium_agents.diagnose.spans import Span, rows_as_spans
from helium_agents.diagnose.timeline import Phases, load_of, phases_of
from helium_agents.trace.run import TracedAnswer, TracedCall, TracedItem, TracedRun, TracedTool

Event = dict[str, Any]

_ROWS = 1
"""The number of the rows' process; models are numbered on from it."""

_MOST_CHARACTERS = 2_000
"""Of a prompt or an answer: what a person reads in a side panel."""


def chrome_trace_events(run: TracedRun) -> Iterator[Event]:
    """The events of a run, those of a thread in the order of their times."""
    requests = phases_of(run)
    sent = {request.call.number: request for request in requests}
    spans: dict[int, _Place] = {}
    yield from _rows(run, sent, spans)
    models = dict.fromkeys([*run.engines, *(request.call.model for request in requests)])
    trees = {tree.model: [tree] for tree in prefixes(run)}
    places: dict[int, _Place] = {}
    for process, model in enumerate(models, _ROWS + 1):
        of_model = [request for request in requests if request.call.model == model]
        yield from _engine(run, model, process, of_model, trees.get(model, ()), places)
    yield from _flows(run, sent, spans, places)
    yield from _moments(run)


_Place = tuple[int, int]
"""A process and a thread."""


# --- rows ----------------------------------------------------------------------------------------


def _rows(run: TracedRun, sent: dict[int, Phases], places: dict[int, _Place]) -> Iterator[Event]:
    """A thread for each lane of each row; the calls' places are noted."""
    yield from _process(_ROWS, "rows")
    thread = 0
    for spans in rows_as_spans(run):
        for lane in range(1 + max(span.lane for span in spans)):
            yield from _thread(_ROWS, thread + lane, spans[0].name)
        for span in spans:
            yield _slice(
                _ROWS, thread + span.lane, span.start_s, span.end_s, _kind(span), span.name,
                _told(run, span),
            )  # fmt: skip
            if isinstance(span.what, TracedCall):
                places[span.what.number] = _ROWS, thread + span.lane
                request = sent.get(span.what.number)
                if request is not None and request.sent_s > request.ready_s:
                    yield _slice(
                        _ROWS, thread + span.lane, request.ready_s, request.sent_s, "queue",
                        "queued", {},
                    )  # fmt: skip
        thread += 1 + max(span.lane for span in spans)


def _kind(span: Span) -> str:
    """The category of a span, by which the viewer filters."""
    match span.what:
        case TracedCall():
            return "failed" if span.what.error is not None else span.what.source
        case TracedTool():
            return "tool"
        case TracedItem():
            return "row"
        case _:
            return "operator"


def _told(run: TracedRun, span: Span) -> dict[str, Any]:
    """What the viewer shows of a span when it is chosen."""
    match span.what:
        case TracedCall() as call:
            return _told_of_call(run, call)
        case TracedTool() as tool:
            told = {"arguments": tool.arguments, "error": tool.error}
        case TracedItem() as item:
            told = {"error": item.error}
        case _:
            return {}
    return {name: _shown(text) for name, text in told.items() if text is not None}


def _told_of_call(run: TracedRun, call: TracedCall) -> dict[str, Any]:
    told: dict[str, Any] = {"call": call.number, "source": call.source}
    if call.kind == "llm":
        told |= {
            "operator": run.caller(call),
            "model": call.model,
            "prompt tokens": call.prompt_tokens,
            "cached tokens": call.cached_tokens,
            "output tokens": call.output_tokens,
        }
    if call.leader != call.number:
        told["answer of call"] = call.leader
    if call.num_attempts > 1:
        told["attempts"] = call.num_attempts
    if call.error is not None:
        told["error"] = _shown(call.error)
    return told | ({} if call.answer is None else _texts(call.answer))


def _texts(answer: TracedAnswer) -> dict[str, Any]:
    """The prompt and the answers, as far as they were kept."""
    told: dict[str, Any] = {"finish": ", ".join(answer.finish_reasons)}
    if answer.messages is not None:
        told["prompt"] = _shown("\n".join(f"[{role}] {text}" for role, text in answer.messages))
    if answer.texts is not None:
        told["answer"] = _shown("\n".join(answer.texts))
    for name, arguments in (each for calls in answer.tool_calls for each in calls):
        told[f"calls {name}"] = _shown(arguments)
    return told


def _shown(text: str) -> str:
    """A text's beginning; lone surrogates, which no JSON may have, as question marks."""
    whole = text.encode("utf-8", "replace").decode()
    return whole if len(whole) <= _MOST_CHARACTERS else f"{whole[:_MOST_CHARACTERS]} ..."


# --- engines -------------------------------------------------------------------------------------


def _engine(
    run: TracedRun,
    model: str,
    process: int,
    requests: Sequence[Phases],
    trees: Sequence[Prefixes],
    places: dict[int, _Place],
) -> Iterator[Event]:
    """The slots of a model's engines, a thread each, and counters over them."""
    engine = run.engines.get(model)
    several = f" ({engine.num_engines} engines)" if engine and engine.num_engines > 1 else ""
    yield from _process(process, f"engine {model}{several}")
    for slot in range(1 + max((request.slot for request in requests), default=-1)):
        yield from _thread(process, slot, f"slot {slot + 1}")
    for request in requests:
        call = request.call
        places[call.number] = process, request.slot
        name = call.label if call.item not in run.items else f"{call.label}, row {_row(run, call)}"
        told = _told_of_call(run, call)
        times = (request.sent_s, request.first_token_s, request.end_s)
        estimated = {"first token": "estimated"} if request.is_estimated else {}
        yield _slice(process, request.slot, times[0], times[2], "request", name, told)
        yield _slice(process, request.slot, times[0], times[1], "phase", "prefill", estimated)
        yield _slice(process, request.slot, times[1], times[2], "phase", "decode", estimated)
    load = load_of(requests, trees)
    series: dict[str, Sequence[float]] = {
        "requests running": load.running,
        "requests waiting": load.waiting,
        "KV tokens in use": load.kv_tokens,
        "prefix hits, %": [round(100 * share, 1) for share in load.hit_share],
    }
    for name, values in series.items():
        for time_s, value in zip(load.times, values, strict=False):  # KV use may be unknown
            yield _event("C", process, 0, time_s, name=name, args={"value": value})


def _row(run: TracedRun, call: TracedCall) -> int:
    assert call.item is not None
    return run.items[call.item].index + 1


# --- arrows and moments --------------------------------------------------------------------------


def _flows(
    run: TracedRun,
    sent: dict[int, Phases],
    spans: dict[int, _Place],
    slots: dict[int, _Place],
) -> Iterator[Event]:
    """Arrows from calls to their requests, and to those that took their answers."""
    number = 0
    for call in run.calls:
        leader = run.by_number.get(call.leader)
        request = sent.get(call.number)
        if request is not None:
            middle_s = (request.sent_s + request.first_token_s) / 2
            number += 1
            ends = spans[call.number], slots[call.number]
            yield from _arrow(number, "request", ends, middle_s)
        elif leader is not None and leader is not call and leader.number in spans:
            middle_s = (max(call.asked_s, leader.asked_s) + min(call.end_s, leader.end_s)) / 2
            if call.asked_s <= middle_s <= call.end_s:
                number += 1
                ends = spans[leader.number], spans[call.number]
                yield from _arrow(number, call.source, ends, middle_s)


def _arrow(number: int, name: str, ends: tuple[_Place, _Place], time_s: float) -> Iterator[Event]:
    """An arrow between the innermost spans that two threads have at a time."""
    for phase, (process, thread), more in (("s", ends[0], {}), ("f", ends[1], {"bp": "e"})):
        yield _event(phase, process, thread, time_s, name=name, cat="flow", id=number, **more)


def _moments(run: TracedRun) -> Iterator[Event]:
    """What happened to the run as a whole, as marks over all of it."""
    for part in run.parts[1:]:
        yield _mark(part.start_s, "the run goes on", {"run": part.run_id})
    for moment in run.moments:
        told = {"why": moment.detail} if moment.detail else {}
        yield _mark(moment.at_s, f"{moment.kind}: {moment.subject}", told)
    for choice in run.choices:
        yield _mark(choice["t"], f"schedule: {choice['policy']}", {"gain": choice["gain"]})


def _mark(time_s: float, name: str, told: dict[str, Any]) -> Event:
    return _event("i", _ROWS, 0, time_s, name=name, cat="run", s="g", args=told)


# --- events --------------------------------------------------------------------------------------


def _process(process: int, name: str) -> Iterator[Event]:
    order = {"sort_index": -process}  # engines above the rows, of which there may be thousands
    yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": process, "name": "process_sort_index", "args": order}


def _thread(process: int, thread: int, name: str) -> Iterator[Event]:
    place = {"ph": "M", "pid": process, "tid": thread}
    yield {**place, "name": "thread_name", "args": {"name": name}}
    yield {**place, "name": "thread_sort_index", "args": {"sort_index": thread}}


def _slice(
    process: int,
    thread: int,
    start_s: float,
    end_s: float,
    category: str,
    name: str,
    told: dict[str, Any],
) -> Event:
    length = (_nanoseconds(end_s) - _nanoseconds(start_s)) / 1000
    event = _event("X", process, thread, start_s, name=name, cat=category, dur=length)
    return {**event, "args": told} if told else event


def _event(phase: str, process: int, thread: int, time_s: float, **more: Any) -> Event:
    return {
        "ph": phase, "pid": process, "tid": thread, "ts": _nanoseconds(time_s) / 1000, **more
    }  # fmt: skip


def _nanoseconds(time_s: float) -> int:
    return round(time_s * 1e9)
