"""A traced run as Chrome trace events, which Perfetto's viewer opens.

One process has the rows, each with its operators, calls and tools nested; one for each model has
its engines' requests by slot, and counters. Arrows tell which request a call became, and whose
answer a merged call took, and which request an early one had been.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from helium_agents.diagnose.chrome_events import (
    Event,
    Place,
    arrow_events,
    counter_event,
    mark_event,
    process_names,
    span_event,
    thread_names,
)
from helium_agents.diagnose.guesses import guessed_by
from helium_agents.diagnose.measured_load import measured_load
from helium_agents.diagnose.prefixes import Prefixes, prefixes
from helium_agents.diagnose.spans import Span, rows_as_spans
from helium_agents.diagnose.timeline import Load, Phases, load_of, phases_of
from helium_agents.trace.run import TracedAnswer, TracedCall, TracedItem, TracedRun, TracedTool

_ROWS = 1
"""The number of the rows' process; models are numbered on from it."""

_MOST_CHARACTERS = 2_000
"""Of a prompt or an answer: what a person reads in a side panel."""


def chrome_trace_events(run: TracedRun) -> Iterator[Event]:
    """The events of a run, those of a thread in the order of their times."""
    requests = phases_of(run)
    sent = {request.call.number: request for request in requests}
    spans: dict[int, Place] = {}
    yield from _rows(run, sent, spans)
    models = dict.fromkeys([*run.engines, *(request.call.model for request in requests)])
    trees = {tree.model: [tree] for tree in prefixes(run)}
    places: dict[int, Place] = {}
    for process, model in enumerate(models, _ROWS + 1):
        of_model = [request for request in requests if request.call.model == model]
        yield from _engine(run, model, process, of_model, trees.get(model, ()), places)
    yield from _flows(run, sent, spans, places)
    yield from _moments(run)


# --- rows ----------------------------------------------------------------------------------------


def _rows(run: TracedRun, sent: dict[int, Phases], places: dict[int, Place]) -> Iterator[Event]:
    """A thread for each lane of each row; the calls' places are noted."""
    yield from process_names(_ROWS, "rows")
    thread = 0
    for spans in rows_as_spans(run):
        for lane in range(1 + max(span.lane for span in spans)):
            yield from thread_names(_ROWS, thread + lane, spans[0].name)
        for span in spans:
            yield span_event(
                _ROWS, thread + span.lane, span.start_s, span.end_s, _kind(run, span), span.name,
                _told(run, span),
            )  # fmt: skip
            if isinstance(span.what, TracedCall):
                places[span.what.number] = _ROWS, thread + span.lane
                request = sent.get(span.what.number)
                if request is None:
                    continue
                ready_s = max(request.ready_s, span.start_s)  # it may have been computed early
                if request.begun_s > ready_s:
                    yield span_event(
                        _ROWS, thread + span.lane, ready_s, request.begun_s, "queue", "queued", {},
                    )  # fmt: skip
        thread += 1 + max(span.lane for span in spans)


def _kind(run: TracedRun, span: Span) -> str:
    """The categories of a span, by which the viewer filters."""
    match span.what:
        case TracedCall():
            kind = "failed" if span.what.error is not None else span.what.source
            return f"{kind},early" if span.what.number in run.early else kind
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
    if call.number in run.early:
        guess = run.early[call.number]
        who, saved_s = guessed_by(guess["source"]), guess["saved_s"]
        told["computed early"] = f"for {saved_s:.3g} s before it was asked, as guessed by {who}"
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
    places: dict[int, Place],
) -> Iterator[Event]:
    """The slots of a model's engines, a thread each, and counters over them."""
    engine = run.engines.get(model)
    several = f" ({engine.num_engines} engines)" if engine and engine.num_engines > 1 else ""
    yield from process_names(process, f"engine {model}{several}")
    for slot in range(1 + max((request.slot for request in requests), default=-1)):
        yield from thread_names(process, slot, f"slot {slot + 1}")
    for request in requests:
        call = request.call
        places[call.number] = process, request.slot
        name = call.label if call.item not in run.items else f"{call.label}, row {_row(run, call)}"
        told = _told_of_call(run, call)
        kind = "request,early" if call.number in run.early else "request"
        estimated = {"first token": "estimated"} if request.is_estimated else {}
        begun_s, first_s = request.begun_s, request.first_token_s
        yield span_event(process, request.slot, begun_s, request.end_s, kind, name, told)
        yield span_event(process, request.slot, begun_s, first_s, "phase", "prefill", estimated)
        yield span_event(
            process, request.slot, first_s, request.end_s, "phase", "decode", estimated
        )
    yield from _counters(run, model, process, load_of(requests, trees))


def _counters(run: TracedRun, model: str, process: int, load: Load) -> Iterator[Event]:
    """Curves over a model's slots: what its engines measured, or else what is worked out."""
    measured = measured_load(run, model)
    times: Sequence[float]
    series: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        "requests held back": (load.times, load.waiting),
        "prefix hits, %": (load.times, [round(100 * share, 1) for share in load.hit_share]),
    }
    if measured is None:
        series["requests running (worked out)"] = load.times, load.running
        series["KV tokens in use (worked out)"] = load.times, load.kv_tokens
    else:
        times = measured.times
        series["requests running (measured)"] = times, measured.running
        series["requests waiting in the engine (measured)"] = times, measured.waiting
        series["KV tokens in use (measured)"] = times, measured.kv_tokens
        series["prompt tokens/s (measured)"] = times, measured.prefill_rate
        series["answer tokens/s (measured)"] = times, measured.decode_rate
    for name, (times, values) in series.items():
        for time_s, value in zip(times, values, strict=False):  # KV use may be unknown
            yield counter_event(process, name, time_s, value)


def _row(run: TracedRun, call: TracedCall) -> int:
    assert call.item is not None
    return run.items[call.item].index + 1


# --- arrows and moments --------------------------------------------------------------------------


def _flows(
    run: TracedRun,
    sent: dict[int, Phases],
    spans: dict[int, Place],
    slots: dict[int, Place],
) -> Iterator[Event]:
    """Arrows from calls to their requests, and to those that took their answers."""
    number = 0
    for call in run.calls:
        leader = run.by_number.get(call.leader)
        request = sent.get(call.number)
        if request is not None:
            middle_s = (request.begun_s + request.first_token_s) / 2
            number += 1
            ends = spans[call.number], slots[call.number]
            if middle_s >= call.asked_s:
                yield from arrow_events(number, "request", ends, middle_s, middle_s)
            else:  # it had been computed before it was asked for
                asked_s = (call.asked_s + call.end_s) / 2
                yield from arrow_events(number, "early", ends[::-1], middle_s, asked_s)
        elif leader is not None and leader is not call and leader.number in spans:
            middle_s = (max(call.asked_s, leader.asked_s) + min(call.end_s, leader.end_s)) / 2
            if call.asked_s <= middle_s <= call.end_s:
                number += 1
                ends = spans[leader.number], spans[call.number]
                yield from arrow_events(number, call.source, ends, middle_s, middle_s)


def _moments(run: TracedRun) -> Iterator[Event]:
    """What happened to the run as a whole, as marks over all of it."""
    for part in run.parts[1:]:
        yield mark_event(_ROWS, part.start_s, "the run goes on", {"run": part.run_id})
    for moment in run.moments:
        told = {"why": moment.detail} if moment.detail else {}
        yield mark_event(_ROWS, moment.at_s, f"{moment.kind}: {moment.subject}", told)
    for choice in run.choices:
        yield mark_event(
            _ROWS, choice["t"], f"schedule: {choice['policy']}", {"gain": choice["gain"]}
        )
