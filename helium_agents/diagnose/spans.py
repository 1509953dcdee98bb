"""The rows of a traced run as nested spans: operators, the calls and tools in them, side by side.

What overlaps in time without one being inside the other goes into lanes of its own, so that within
a lane spans nest or follow one another, as programs that draw time lines want it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

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
        depth: How many spans it is inside of.
    """

    name: str
    start_s: float
    end_s: float
    what: TracedItem | TracedCall | TracedTool | None
    around: Span | None
    lane: int = 0
    depth: int = 0

    def __post_init__(self) -> None:
        if self.around is not None:
            self.depth = self.around.depth + 1


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
        begin_s = min((self._times(each)[0] for each in calls), default=0.0)
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
        for span in sorted(self._spans, key=lambda span: -span.depth):
            if span.around is not None:
                span.around.start_s = min(span.around.start_s, span.start_s)
                span.around.end_s = max(span.around.end_s, span.end_s)
        self._spans.sort(key=lambda span: (span.start_s, -span.end_s, span.depth))
        lanes = _Lanes()
        for span in self._spans:
            lanes.put(span)
        return self._spans

    def _body(self, number: int, inside: TracedCall | TracedTool) -> Span:
        """The span of an operator's body; the row's where there is none."""
        run, inner = self._run, []  # bodies that have no span yet, the innermost first
        while number and number not in self._bodies:
            body, own = run.bodies.get(number), self._own.get(number)
            if body is None and own is None:
                break
            inner.append(number)
            number = own.body if own is not None else body.body if body is not None else 0
        span = self._bodies.get(number, self._outer)
        for number in reversed(inner):
            own = self._own.get(number)
            name = short_name(run.bodies[number].name) if own is None else own.label
            span = Span(name, *self._times(own or inside), own, span)
            self._spans.append(span)
            self._bodies[number] = span
        return span

    def _add(self, name: str, what: TracedCall | TracedTool, around: Span) -> Span:
        span = Span(name, *self._times(what), what, around)
        self._spans.append(span)
        return span

    def _times(self, what: TracedCall | TracedTool) -> tuple[float, float]:
        """When it began, and when it had ended."""
        if isinstance(what, TracedTool):
            return what.begun_s, what.end_s
        known = self._run.by_number
        came_s = (known[number].end_s for number in what.inputs if number in known)
        return min(what.end_s, max([what.asked_s, *came_s])), what.end_s


class _Lanes:
    """The lanes of a row; spans are put into them in the order in which they begin."""

    def __init__(self) -> None:
        self._open: list[list[Span]] = []  # by lane, outer ones first
        self._ends: list[tuple[float, int]] = []  # when the outermost span of each lane ends

    def put(self, span: Span) -> None:
        """Put a span on the one that it is in, where nothing else is open there, or else aside."""
        around = span.around
        if around is not None:
            open_ = self._open[around.lane]
            while open_ and open_[-1] is not around and open_[-1].end_s <= span.start_s:
                open_.pop()
            if open_ and open_[-1] is around:
                span.lane = around.lane
                open_.append(span)
                return
        if self._ends and self._ends[0][0] <= span.start_s:
            span.lane = heappop(self._ends)[1]
        else:
            span.lane = len(self._open)
            self._open.append([])
        self._open[span.lane] = [span]
        heappush(self._ends, (span.end_s, span.lane))
