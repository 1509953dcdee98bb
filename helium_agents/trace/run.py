"""What a trace tells, as plain data; times in seconds since the run began.

A run that was resumed has several parts; they are told as one, each beginning when the one before
it ended, with calls numbered on.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from helium_agents.optimizer.step_window import StepWindow
from helium_agents.telemetry.events import Source


@dataclass(frozen=True)
class TracedPart:
    """One session of a run.

    Args:
        run_id: The run's.
        unix_s: When it began, in Unix time.
        start_s: When it began.
        version: That of helium_agents.
        has_content: Whether the texts of prompts and answers were kept.
        schedule: What the session was told to schedule by.
    """

    run_id: str
    unix_s: float
    start_s: float
    version: str
    has_content: bool
    schedule: str


@dataclass(frozen=True)
class TracedEngine:
    """The engines of a model.

    Args:
        model: What a person calls it.
        num_engines: How many.
        capacity: What they hold together, by the names of `engines.engine.Capacity`; `None` where
            there is no limit.
        cost: What a step takes, by the names of `optimizer.step_cost.StepCost`; `None` where nobody
            knows.
    """

    model: str
    num_engines: int
    capacity: Mapping[str, int] | None
    cost: Mapping[str, float] | None


@dataclass
class TracedItem:
    """An item of a top-level map.

    Args:
        item: How many were read before it in the session.
        index: Its position in the input.
        opened_s: When it was opened.
        closed_s: When it had ended, and what it remembers was durable; `None` if the trace ends
            before.
        ended_s: When its function had ended.
        error: What it failed with, in words.
        num_parts: How many parts of the run opened it. Each that begins it anew asks its calls
            again, those that are remembered too.
    """

    item: int
    index: int
    opened_s: float
    closed_s: float | None = None
    ended_s: float | None = None
    error: str | None = None
    num_parts: int = 1


@dataclass(frozen=True)
class TracedAnswer:
    """What an engine was asked and answered.

    Args:
        prompt: Token ids; none where the engine tells none.
        outputs: Token ids of each answer.
        max_tokens: Most tokens of one.
        finish_reasons: Why each ended: "stop" or "length".
        messages: Pairs of a role and a text; `None` where texts were not kept.
        texts: The answers; `None` where they were not kept.
        tool_calls: Of each answer the calls of tools in it, a name and arguments as JSON; none
            where texts were not kept.
    """

    prompt: array[int]
    outputs: tuple[array[int], ...]
    max_tokens: int
    finish_reasons: tuple[str, ...]
    messages: tuple[tuple[str, str], ...] | None = None
    texts: tuple[str, ...] | None = None
    tool_calls: tuple[tuple[tuple[str, str], ...], ...] = ()


@dataclass(frozen=True)
class TracedCall:
    """A call of a model or of a pure operator, once it was settled.

    Args:
        number: Counts the run's calls; those of plain operators have numbers too.
        kind: What was called.
        label: What a person calls it.
        source: How the answer came about.
        body: The number of the operator call in whose body it was made; 0 outside of any.
        leader: The number of the call whose answer it is; its own, if it asked.
        item: The top-level item that it was made for; `None` outside of any.
        model: What a person calls the model; "" for an operator.
        inputs: The numbers of the calls whose Refs went into it.
        calls_below: Model calls that were never made since it was known.
        error: What it failed with, in words.
        asked_s: When it was demanded.
        sent_s: When it was sent to an engine; `None` where none was asked.
        first_token_s: When the engine had its first token, or else when that was heard of, where
            either is known.
        end_s: When the answer was there.
        num_attempts: How often an engine was asked.
        prompt_tokens: Of the answer, whether or not they were sent this time.
        cached_tokens: Those of them that the engine had.
        output_tokens: Of the answer.
        answer: What the engine was asked and answered; `None` where none was.
        begun_s: When the engine began to read the prompt, where it tells.
    """

    number: int
    kind: Literal["llm", "operator"]
    label: str
    source: Source
    body: int
    leader: int
    item: int | None
    model: str
    inputs: tuple[int, ...]
    calls_below: int
    error: str | None
    asked_s: float
    sent_s: float | None
    first_token_s: float | None
    end_s: float
    num_attempts: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    answer: TracedAnswer | None
    begun_s: float | None = None

    @property
    def is_computed(self) -> bool:
        """Whether an engine has answered this very call."""
        return self.kind == "llm" and self.source == "engine" and self.error is None


@dataclass(frozen=True)
class TracedTool:
    """A call of a tool that the program carried out.

    Args:
        name: The tool.
        body: The number of the operator call in whose body it was carried out; 0 outside of any.
        item: The top-level item that it was carried out for; `None` outside of any.
        begun_s: When it was begun.
        end_s: When it had ended.
        error: What it failed with, in words.
        arguments: As the model wrote them, JSON; `None` where texts were not kept.
    """

    name: str
    body: int
    item: int | None
    begun_s: float
    end_s: float
    error: str | None
    arguments: str | None


@dataclass(frozen=True)
class TracedMoment:
    """Something that happened to the run as a whole.

    Args:
        kind: What.
        at_s: When.
        subject: The engine, or the workflow whose profile did not fit.
        detail: Why, in words; empty where that was not kept.
        seconds: What starting the engine took.
        num_open: Requests that were open on an engine that was lost.
    """

    kind: Literal["engine started", "engine lost", "misfit"]
    at_s: float
    subject: str
    detail: str = ""
    seconds: float = 0.0
    num_open: int = 0


@dataclass(frozen=True)
class TracedBody:
    """A call of an operator in whose body others were made.

    Args:
        number: Its number.
        name: The operator's module and qualified name.
        body: The number of the operator call in whose body it was made; 0 outside of any.
    """

    number: int
    name: str
    body: int


@dataclass(repr=False)
class TracedRun:
    """A run.

    Args:
        parts: Its sessions, in order.
        engines: By what a person calls their model; as they were last described.
        items: Items of top-level maps, by `TracedItem.item`.
        calls: In the order in which they were settled.
        bodies: Operator calls by number.
        tools: Calls of tools, in the order in which they ended.
        moments: What happened to the run as a whole, in order.
        steps: By model and engine what the engine computed, in the order of time; nothing of
            engines that do not tell.
        num_rows: Rows of its top-level maps, those included that an earlier part has answered;
            `None` where that is not known.
        choices: What the schedule chose, as the fields of each `ScheduleChosen`, with the time `t`.
        speculated: What was computed early, as the fields of each `Speculated`, likewise.
        guessed: What was guessed of calls in pure operators, as the fields of each `Guessed`, by
            the call's number.
        is_cut: Whether the last thing written is not there to its end: the run goes on, or was
            killed.
    """

    parts: list[TracedPart] = field(default_factory=list)
    engines: dict[str, TracedEngine] = field(default_factory=dict)
    items: dict[int, TracedItem] = field(default_factory=dict)
    calls: list[TracedCall] = field(default_factory=list)
    bodies: dict[int, TracedBody] = field(default_factory=dict)
    tools: list[TracedTool] = field(default_factory=list)
    moments: list[TracedMoment] = field(default_factory=list)
    steps: dict[tuple[str, str], list[StepWindow]] = field(default_factory=dict)
    num_rows: int | None = None
    choices: list[dict[str, Any]] = field(default_factory=list)
    speculated: list[dict[str, Any]] = field(default_factory=list)
    guessed: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    is_cut: bool = False

    @property
    def computed(self) -> Sequence[TracedCall]:
        """The calls that an engine has answered."""
        return [call for call in self.calls if call.is_computed]

    @cached_property
    def by_number(self) -> dict[int, TracedCall]:
        """The calls by number."""
        return {call.number: call for call in self.calls}

    @cached_property
    def early(self) -> dict[int, dict[str, Any]]:
        """Of the calls that had been computed before they were asked for, by number."""
        return {each["call"]: each for each in self.speculated if each["is_used"]}

    def __repr__(self) -> str:
        parts = "" if len(self.parts) == 1 else f", {len(self.parts)} parts"
        num_computed, num_failed = len(self.computed), sum(c.error is not None for c in self.calls)
        return (
            f"<TracedRun: {len(self.items):,} rows, {len(self.calls):,} calls, {num_computed:,} "
            f"computed, {num_failed:,} failed, {len(self.tools):,} tools{parts}>"
        )

    def unix_s(self, time_s: float) -> float:
        """When something was, in Unix time; each part's clock is set by its own beginning."""
        part = self.parts[0]
        for later in self.parts:
            if later.start_s <= time_s:
                part = later
        return part.unix_s + time_s - part.start_s

    def caller(self, call: TracedCall) -> str:
        """The name of the operator in whose body a call was made; "" outside of any."""
        body = self.bodies.get(call.body)
        return "" if body is None else body.name
