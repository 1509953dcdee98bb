"""The rows of a traced run as nested spans: operators, the calls and tools in them, side by side.

What overlaps in time without one being inside the other goes into lanes of its own, so that within
a lane spans nest or follow one another, as programs that draw time lines want it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from helium_agents.diagnose.analyze import short_name
from helium_agents.trace.run import TracedCall, TracedItem, TracedRun, TracedTool


@dataclass(slots=True, eq=False)
class Span:
    """A row, an operator's body, a call or a tool.

    Args:
        name: What a person calls it.
        start_s: When it began; of a call, when it was asked and its inputs were there.
        end_s: When it had ended.
        what: What it is of; `None` for the body of an operator that is not pure, of which nothing
            is known but what was called in it, and for what is outside of rows.
        around: What it is inside of; `None` for a row.
        lane: Beside which others it stands, from 0.
    """

    name: str
    start_s: float
    end_s: float
    what: TracedItem | TracedCall | TracedTool | None
    around: Span | None
    lane: int = 0


def rows_as_spans(run: TracedRun) -> Iterator[list[Span]]:
    """The spans of each row, outer ones first; last, if there are any, those outside of rows."""
    calls: dict[int | None, list[TracedCall | TracedTool]] = defaultdict(list)
    both: list[TracedCall | TracedTool] = [*run.calls, *run.tools]
    for each in both:
        calls[each.item if each.item in run.items else None].append(each)
    for number, item in run.items.items():
        yield _Row(run, item, calls[number]).spans()
    if calls[None]:
        yield _Row(run, None, calls[None]).spans()


class _Row:
    """A row, or what is outside of rows."""

    def __init__(
        self, run: TracedRun, item: TracedItem | None, calls: list[TracedCall | TracedTool]
    ) -> None:
        self._run = run
        begin_s = min(map(self._start_of, calls), default=0.0)
        end_s = max((each.end_s for each in calls), default=begin_s)
        if item is None:
            self._outer = Span("outside of rows", begin_s, end_s, None, None)
        else:
            ended_s = item.ended_s if item.ended_s is not None else item.closed_s
            end_s = max(item.opened_s, end_s if ended_s is None else ended_s)
            self._outer = Span(f"row {item.index + 1}", item.opened_s, end_s, item, None)
        self._spans = [self._outer]
        self._bodies: dict[int, Span] = {}
        self._own = {
            each.number: each
            for each in calls
            if isinstance(each, TracedCall) and each.source == "body"
        }
        for each in calls:
            if isinstance(each, TracedTool):
                self._add(f"tool {each.name}", each, self._body(each.body, each))
            elif each.number in self._own:
                self._body(each.number, each)
            else:
                self._add(each.label, each, self._body(each.body, each))

    def spans(self) -> list[Span]:
        """All of them, each in its lane."""
        for span in self._spans:
            around = span.around
            while around is not None:
                around.start_s = min(around.start_s, span.start_s)
                around.end_s = max(around.end_s, span.end_s)
                around = around.around
        self._spans.sort(key=lambda span: (span.start_s, -span.end_s, _depth(span)))
        lanes: list[list[Span]] = []
        for span in self._spans:
            span.lane = next(
                (lane for lane, open_ in enumerate(lanes) if _fits(span, open_)), len(lanes)
            )
            if span.lane == len(lanes):
                lanes.append([])
            lanes[span.lane].append(span)
        return self._spans

    def _body(self, number: int, inside: TracedCall | TracedTool) -> Span:
        """The span of an operator's body; the row's where there is none."""
        if not number:
            return self._outer
        found = self._bodies.get(number)
        if found is None:
            body, own = self._run.bodies.get(number), self._own.get(number)
            if own is not None:
                found = self._add(own.label, own, self._body(own.body, own))
            elif body is None:
                return self._outer
            else:
                around = self._body(body.body, inside)
                found = Span(
                    short_name(body.name), self._start_of(inside), inside.end_s, None, around
                )
                self._spans.append(found)
            self._bodies[number] = found
        return found

    def _add(self, name: str, what: TracedCall | TracedTool, around: Span) -> Span:
        span = Span(name, self._start_of(what), what.end_s, what, around)
        self._spans.append(span)
        return span

    def _start_of(self, what: TracedCall | TracedTool) -> float:
        if isinstance(what, TracedTool):
            return what.begun_s
        known = self._run.by_number
        came_s = (known[number].end_s for number in what.inputs if number in known)
        return min(what.end_s, max([what.asked_s, *came_s]))


def _depth(span: Span) -> int:
    depth = 0
    while span.around is not None:
        span, depth = span.around, depth + 1
    return depth


def _fits(span: Span, open_: list[Span]) -> bool:
    """Whether a span can be put into a lane, of which those are dropped that have ended."""
    while open_ and open_[-1].end_s <= span.start_s and not _is_inside(span, open_[-1]):
        open_.pop()
    return not open_ or (open_[-1].end_s >= span.end_s and _is_inside(span, open_[-1]))


def _is_inside(span: Span | None, other: Span) -> bool:
    while span is not None and span is not other:
        span = span.around
    return span is not None
