"""The observer: turns a session's events into the records of spans.

A `map` or a run is a span, below it are its rows, below these the calls of operators, tools and
models. What began outside of any of these is below the span in which the program runs, or begins a
trace of its own. Every call has one span: that of a merged one links to the one that was computed.

Ids follow from the numbers of calls, so that nothing needs to be kept of a span that has ended.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Any

from msgspec.structs import replace

from helium_agents.errors import message_of
from helium_agents.telemetry.events import (
    BodyBegan,
    BodyEnded,
    CallMade,
    CallSettled,
    Event,
    ItemClosed,
    ItemOpened,
    ModelOpened,
    Observer,
    OperatorCall,
    RequestAnswered,
    RequestBegan,
    SpansLost,
    Speculated,
    ToolEnded,
    WorkflowBegan,
    WorkflowEnded,
)
from helium_agents.telemetry.otel.answers import answer_of, said_in, sampled_of
from helium_agents.telemetry.otel.context import Place, caller_of
from helium_agents.telemetry.otel.latest import Latest
from helium_agents.telemetry.otel.records import (
    Agent,
    Answer,
    Began,
    Chat,
    Ended,
    Row,
    Sampled,
    Tool,
    Work,
    Workflow,
)
from helium_agents.telemetry.otel.sampling import Sampler
from helium_agents.telemetry.otel.sink import Sink

_SPREAD = 0x9E3779B97F4A7C15  # odd, so that no two numbers have one id
_IDS = 2**64
_TOOLS = -(2**48)  # rows count down from -1, and tools from here


class _OpenMap:
    """A workflow that is open, and the rows of it that are."""

    __slots__ = ("body", "name", "place", "rows")

    def __init__(self, place: Place, name: str, body: int) -> None:
        self.place, self.name, self.body = place, name, body
        self.rows: dict[int, Place] = {}


class Spans:
    """Tells a sink what begins and ends.

    Args:
        sink: Where records go.
        run_id: Of the session's run.
        content: Whether prompts, answers and what errors say are told.
        emit: Takes the event that spans were lost.
    """

    def __init__(self, sink: Sink, run_id: str, *, content: bool, emit: Observer) -> None:
        self._sink, self._put = sink, sink.put
        self._run_id = run_id
        self._content = content
        self._emit = emit
        self._sampler = Sampler(os.environ)
        self._now_s = asyncio.get_running_loop().time
        self._epoch_ns = time.time_ns() - int(self._now_s() * 1e9)
        self._first_id = random.getrandbits(64)
        self._around: ContextVar[Place | None] = ContextVar("helium_agents.workflow", default=None)
        self._tokens: dict[int, Token[Place | None]] = {}
        self._models: dict[str, ModelOpened] = {}
        self._open: dict[int, tuple[Place, float]] = {}  # calls, by number
        self._maps: dict[int, _OpenMap] = {}
        self._map_of: dict[int, _OpenMap] = {}  # by the rank of a row
        self._callers = Latest[int, Place]()  # of calls in no body and no row
        self._leaders = Latest[int, Place]()  # whose answers others may share
        self._num_tools = 0
        self._speculated = Latest[int, bool]()  # calls answered early, by number
        self._answers = Latest[str, RequestAnswered]()  # by request
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            BodyBegan: self._body_began,
            BodyEnded: self._body_ended,
            CallMade: self._call_made,
            CallSettled: self._call_settled,
            ItemClosed: self._item_closed,
            ItemOpened: self._item_opened,
            ModelOpened: self._model_opened,
            RequestAnswered: self._request_answered,
            RequestBegan: self._request_began,
            Speculated: self._was_speculated,
            ToolEnded: self._tool_ended,
            WorkflowBegan: self._workflow_began,
            WorkflowEnded: self._workflow_ended,
        }

    def __call__(self, event: Event) -> None:
        """Tell the sink."""
        handle = self._handlers.get(type(event))
        if handle is not None:
            handle(event)

    async def close(self) -> None:
        """End what is open, and see that all is sent that can be."""
        for number in list(self._open):
            self._end(self._open.pop(number)[0], self._now_s(), _LEFT_OPEN)
        for number in list(self._maps):
            self._workflow_ended(WorkflowEnded(number, None))
        end_ns = self._epoch_ns + int(self._now_s() * 1e9)
        num_lost, reason = await self._sink.close(end_ns)
        if num_lost:
            self._emit(SpansLost(num_lost, reason))

    # --- places --------------------------------------------------------------------------------

    def _caller(self) -> Place | None:
        """What the code is in that runs now, of which the session does not know."""
        return self._around.get() or caller_of(os.environ)

    def _above(self, body: OperatorCall | None, item: int | None, caller: Place | None) -> Place:
        """The place below which a call is: its operator, its row, its caller, or a new trace."""
        of_row = None if item is None else self._map_of.get(item)
        while body is not None:
            if of_row is not None and body.number == of_row.body:
                break  # around the map, of which the row is inside
            found = self._open.get(body.number)
            if found is not None:
                return found[0]
            body = body.caller
        if of_row is not None and item is not None and item in of_row.rows:
            return of_row.rows[item]
        if caller is not None:
            if caller.span:
                takes = self._sampler.takes(caller.trace, caller.is_sampled)
                return Place(caller.trace, caller.span, takes)
            return caller
        trace = (random.getrandbits(128) or 1).to_bytes(16, "big")
        return Place(trace, 0, self._sampler.takes(trace, None))

    def _begin(self, number: int, above: Place, start_s: float, work: Work) -> Place:
        trace, is_sampled = above.trace, above.is_sampled
        span = (self._first_id + number * _SPREAD) % _IDS or 1
        if is_sampled:
            start_ns = self._epoch_ns + int(start_s * 1e9)
            self._put(Began(span, above.span, trace, start_ns, work))
        return Place(trace, span, is_sampled)

    def _end(
        self,
        place: Place,
        end_s: float | None,
        error: BaseException | None,
        answer: Answer | None = None,
    ) -> None:
        if place.is_sampled:
            said = None
            if error is not None:
                said = type(error).__name__, message_of(error) if self._content else ""
            end_ns = self._epoch_ns + int((self._now_s() if end_s is None else end_s) * 1e9)
            self._put(Ended(place.span, end_ns, said, answer))

    # --- workflows and rows --------------------------------------------------------------------

    def _model_opened(self, event: ModelOpened) -> None:
        self._models[event.model] = event

    def _workflow_began(self, event: WorkflowBegan) -> None:
        above = self._above(event.body, None, self._caller())
        work = Workflow(event.name, event.num_rows, self._run_id)
        place = self._begin(event.number, above, self._now_s(), work)
        body = 0 if event.body is None else event.body.number
        self._maps[event.number] = _OpenMap(place, event.name, body)
        if event.is_run:
            self._tokens[event.number] = self._around.set(place)

    def _workflow_ended(self, event: WorkflowEnded) -> None:
        token = self._tokens.pop(event.number, None)
        if token is not None:
            with suppress(ValueError):  # ended by the garbage collector, in another context
                self._around.reset(token)
        ended = self._maps.pop(event.number, None)
        if ended is None:
            return
        now_s = self._now_s()
        for rank, place in ended.rows.items():
            self._map_of.pop(rank, None)
            self._end(place, now_s, _LEFT_OPEN)
        self._end(ended.place, now_s, event.error)

    def _item_opened(self, event: ItemOpened) -> None:
        around = self._maps.get(event.workflow)
        if around is None:
            return
        work = Row(around.name, event.index)
        place = self._begin(-1 - event.item, around.place, self._now_s(), work)
        around.rows[event.item] = place
        self._map_of[event.item] = around

    def _item_closed(self, event: ItemClosed) -> None:
        around = None if event.is_nested else self._map_of.pop(event.item, None)
        if around is not None:
            self._end(around.rows.pop(event.item), self._now_s(), event.error)

    # --- operators and tools -------------------------------------------------------------------

    def _body_began(self, event: BodyBegan) -> None:
        body = event.body
        if body.number in self._open:
            return
        caller = None
        if body.caller is None and event.item is None:
            caller = self._callers.get(body.number) or self._caller()
        above, now_s = self._above(body.caller, event.item, caller), self._now_s()
        place = self._begin(body.number, above, now_s, Agent(body.name))
        self._open[body.number] = place, now_s
        self._leaders[body.number] = place

    def _tool_ended(self, event: ToolEnded) -> None:
        self._num_tools += 1
        above = self._above(event.body, event.item, self._caller())
        work = Tool(event.name, event.call_id)
        place = self._begin(_TOOLS - self._num_tools, above, event.begun_s, work)
        self._end(place, event.ended_s, event.error)

    def _body_ended(self, event: BodyEnded) -> None:
        found = self._open.pop(event.call, None)
        if found is not None:
            self._end(found[0], self._now_s(), event.error)

    # --- model calls ---------------------------------------------------------------------------

    def _call_made(self, event: CallMade) -> None:
        caller = self._caller()
        if caller is not None:
            self._callers[event.call] = caller

    def _request_began(self, event: RequestBegan) -> None:
        found = self._open.get(event.call)
        if found is None:
            above, now_s = self._above_call(event), self._now_s()
            work = self._chat(event.model, event.body, sampled_of(event.sampling))
            found = self._begin(event.call, above, now_s, work), now_s
            self._open[event.call] = found
            self._leaders[event.call] = found[0]
        event.headers["traceparent"] = self._sink.traceparent(found[0])

    def _was_speculated(self, event: Speculated) -> None:
        if event.is_used:
            self._speculated[event.call] = True

    def _request_answered(self, event: RequestAnswered) -> None:
        self._answers[event.request_id] = event

    def _call_settled(self, event: CallSettled) -> None:
        found = self._open.pop(event.call, None)
        usage = event.usage
        if found is None:
            work: Work
            if event.kind == "llm":
                work = self._chat(event.model, event.body, None)
            else:
                work = Agent(event.label)
            start_s = usage.asked_s
            place = self._begin(event.call, self._above_call(event), start_s, work)
        else:
            place, start_s = found
        self._callers.pop(event.call, None)
        answered = None
        if event.source == "engine" and usage.request_id is not None:
            answered = self._answers.pop(usage.request_id, None)
        answer = None
        if place.is_sampled:
            leader = None if event.leader == event.call else self._leaders.get(event.leader)
            is_early = self._speculated.pop(event.call, False)
            answer = answer_of(event, start_s, leader, answered, is_early=is_early)
            if answered is not None and self._content:
                answer = replace(answer, said=said_in(answered))
        self._end(place, usage.end_s, event.error, answer)

    def _above_call(self, event: RequestBegan | CallSettled) -> Place:
        is_root = event.body is None and event.item is None
        return self._above(
            event.body, event.item, self._callers.get(event.call) if is_root else None
        )

    def _chat(self, model: str, body: OperatorCall | None, sampled: Sampled | None) -> Chat:
        opened = self._models[model]
        operator = "" if body is None else body.name
        return Chat(model, opened.provider, opened.server, operator, sampled)


class _LeftOpen(Exception):
    """What was open when the session was closed, or its map."""


_LEFT_OPEN = _LeftOpen("it was left before its end")
