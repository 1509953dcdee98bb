"""What happens in a session, as immutable events handed to observers.

Observers are plain callables; progress bars, summaries and tracers are nothing else. They run on
the event loop and must be quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Source = Literal["engine", "body", "memo", "earlier", "merged", "joined", "prefix"]
"""How a call got its answer: the engine computed it; the operator's body ran; the memo had it
before the session began; it was remembered earlier in the same session; a rule merged it with an
equal call; it joined an equal call in flight; it was cut from a longer answer."""


@dataclass(frozen=True, slots=True)
class EngineStarting:
    """An engine is being started, because a call needs it."""

    model: str


@dataclass(frozen=True, slots=True)
class EngineStarted:
    """An engine is ready."""

    model: str
    seconds: float


@dataclass(frozen=True, slots=True)
class EngineLost:
    """An engine died.

    Args:
        model: What a person calls it.
        reason: Why, as far as is known.
        num_open: Requests that were open on it; they are asked again.
        num_deaths: How often it has died in this session, this death included.
    """

    model: str
    reason: str
    num_open: int
    num_deaths: int


@dataclass(frozen=True, slots=True)
class EngineDescribed:
    """What the engines of a model hold and cost, before their first answer and when that changes.

    Args:
        model: What a person calls it.
        num_engines: How many engines it has.
        capacity: What they hold together, by the names of `engines.engine.Capacity`; `None` where
            there is no limit.
        cost: What a step takes, by the names of `optimizer.step_cost.StepCost`; `None` where nobody
            knows.
    """

    model: str
    num_engines: int
    capacity: Mapping[str, int] | None
    cost: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class EngineStepped:
    """What an engine computed since this was told last; about once in a second.

    Args:
        model: What a person calls its model.
        engine: What a person calls it.
        windows: `optimizer.step_window.StepWindow` each: the steps of a short time, in order.
    """

    model: str
    engine: str
    windows: Sequence[tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class ModelOpened:
    """A session begins to use a model.

    Args:
        model: What a person calls it.
        provider: What computes its answers, as `gen_ai.provider.name` has it.
        server: Host and port of the server that it is asked at; `None` for an engine of this
            machine.
    """

    model: str
    provider: str
    server: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class WorkflowBegan:
    """A `map` that is inside no item of another, or a `session.run`, began.

    Args:
        number: Its number in the session; no call has the same.
        name: What a person calls its function.
        num_rows: How many rows it has; `None` where the input has no length, and for a run.
        body: The operator call in whose body it is; `None` outside of any.
        is_run: Whether it is a run, whose calls are made where it is told.
    """

    number: int
    name: str
    num_rows: int | None = None
    body: OperatorCall | None = None
    is_run: bool = False


@dataclass(frozen=True, slots=True)
class WorkflowEnded:
    """Nothing of a workflow is open any more; see `WorkflowBegan`.

    Args:
        number: Its number.
        error: What the run failed with, or what the reading of rows did; `None` if nothing.
    """

    number: int
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class MapOpened:
    """A `map` began.

    Args:
        num_items: How many rows it has; `None` where the input has no length.
        is_nested: Whether it is inside an item of another.
        num_done: How many of them an earlier part of the run has answered.
    """

    num_items: int | None
    is_nested: bool
    num_done: int = 0


@dataclass(frozen=True, slots=True)
class ItemOpened:
    """An item of a `map` began.

    Args:
        index: Its position in the input of its map, from 0.
        is_nested: Whether its map is inside an item of another.
        item: The top-level item that it is or belongs to, by how many were read before it.
        workflow: The number of its map; 0 where that is inside an item of another.
    """

    index: int
    is_nested: bool
    item: int = 0
    workflow: int = 0


@dataclass(frozen=True, slots=True)
class ItemClosed:
    """An item of a `map` ended, and what it remembers is durable; see `ItemOpened`.

    Args:
        index: Its position in the input of its map, from 0.
        is_nested: Whether its map is inside an item of another.
        error: What it failed with, or `None`.
        item: The top-level item that it is or belongs to.
        ended_s: When its function had ended, by the event loop's clock; `None` if it was cancelled.
    """

    index: int
    is_nested: bool
    error: BaseException | None
    item: int = 0
    ended_s: float | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A frontier was planned: how many nodes it had before and after the rules, and how long."""

    num_nodes: int
    num_computed: int
    seconds: float


ScheduleSource = Literal["declared calls", "profile", "declared calls and profile"]
"""Whence it is known what rows will ask: they declare it; rows before them asked so; their calls
are declared, and how long answers are is known from earlier ones."""


@dataclass(frozen=True, slots=True)
class ScheduleChosen:
    """Which rows are open at once is chosen anew.

    Args:
        policy: What is chosen, in words.
        gain: By how much that is predicted to be faster than having all open.
        predicted_s: How long the rows that were looked at are predicted to take; `None` where
            nothing was to be chosen, since all fits into the KV cache.
        seconds: What choosing took.
        compared: Of each policy that was looked at, in words: how long the rows are predicted to
            take under it, and its gain.
        source: Whence it is known what rows will ask.
        expected: What is expected of each call site under the policy, by the names of
            `optimizer.expected.ExpectedSite`.
    """

    policy: str
    gain: float
    predicted_s: float | None
    seconds: float
    compared: tuple[tuple[str, float, float], ...] = ()
    source: ScheduleSource = "declared calls"
    expected: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ProfileMisfit:
    """What earlier runs have learned of a workflow does not fit this one, which is planned anew.

    Args:
        workflow: What a person calls it.
        reason: What does not fit.
    """

    workflow: str
    reason: str


@dataclass(slots=True)
class Usage:
    """What a call took, of all who share its answer together; times by the event loop's clock.

    Args:
        asked_s: When it was demanded first.
        sent_s: When it was sent to an engine, the last time if that died meanwhile; `None` where
            no engine was asked.
        first_token_s: When the first text came; `None` where nobody streams, and the engine does
            not tell otherwise.
        end_s: When the answer was there.
        num_attempts: How often an engine was asked.
        request_id: The last request's.
        prompt_tokens: Prompt tokens of the answer, whether or not they were sent this time.
        cached_tokens: Those of them that the engine had in its prefix cache.
        output_tokens: Tokens of the answer, whether or not they were computed this time.
        begun_s: When the engine began to read the prompt; `None` where it does not tell.
        read_s: When it had read it, and had its first token, likewise.
    """

    asked_s: float
    sent_s: float | None = None
    first_token_s: float | None = None
    end_s: float | None = None
    num_attempts: int = 0
    request_id: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    begun_s: float | None = None
    read_s: float | None = None


@dataclass(frozen=True, slots=True)
class SpansLost:
    """Spans could not be sent to where OpenTelemetry was to send them.

    Args:
        num_spans: How many.
        reason: Why, as far as is known.
    """

    num_spans: int
    reason: str


class CallMissed(NamedTuple):
    """A call of a session with a memo is about to be computed, for want of a remembered answer.

    Args:
        kind: Whether a model or a pure operator is called.
        label: What a person calls it.
        record: Its provenance, as it will be kept beside the answer; see `helium_agents.diagnose`.
            For the observer to call at once: the call forgets its arguments when it has ended.
    """

    kind: Literal["llm", "operator"]
    label: str
    record: Callable[[], bytes]


class RequestAnswered(NamedTuple):
    """An engine has answered; the call's `CallSettled` follows.

    Args:
        request_id: As in the call's `Usage`.
        model: What a person calls the model.
        messages: The conversation, as pairs of a role and a text.
        prompt_token_ids: It as the engine was asked it; empty where the engine tells none.
        max_tokens: Most tokens of one answer.
        texts: The answers.
        token_ids: Theirs, end of sequence included; empty where the engine tells none.
        finish_reasons: Why each ended: "stop" or "length".
        tool_calls: Of each the calls of tools in it: a name, and arguments as JSON.
    """

    request_id: str
    model: str
    messages: Sequence[tuple[str, str]]
    prompt_token_ids: Sequence[int]
    max_tokens: int
    texts: Sequence[str]
    token_ids: Sequence[Sequence[int]]
    finish_reasons: Sequence[str]
    tool_calls: Sequence[Sequence[tuple[str, str]]] = ()


@dataclass(frozen=True, slots=True, eq=False)
class OperatorCall:
    """A call of an operator in whose body others are made.

    Args:
        number: The call's number in the session.
        name: The operator's module and qualified name, as `flow:expert`.
        caller: The operator call in whose body it was made; `None` outside of any.
    """

    number: int
    name: str
    caller: OperatorCall | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """A call of a tool that `run_tools` carried out has ended.

    Args:
        name: The tool.
        call_id: What tells the call from the others of its conversation.
        arguments: As the model wrote them, JSON.
        begun_s: When it was begun, by the event loop's clock.
        ended_s: When it had ended.
        error: What it failed with, or `None`.
        body: The operator call in whose body it was carried out; `None` outside of any.
        item: The top-level item that it was carried out for; `None` outside of any.
    """

    name: str
    call_id: str
    arguments: str
    begun_s: float
    ended_s: float
    error: BaseException | None
    body: OperatorCall | None
    item: int | None


class CallMade(NamedTuple):
    """A pure or model call was made outside of any operator and row.

    Args:
        call: The call's number in the session.
    """

    call: int


class BodyBegan(NamedTuple):
    """An operator's body is about to run, for the first time if it is retried.

    Args:
        body: The call.
        item: As in `CallSettled`.
    """

    body: OperatorCall
    item: int | None


class BodyEnded(NamedTuple):
    """A plain operator has ended, or a pure one was left by all who waited for it.

    Args:
        call: The call's number.
        error: What it failed with, or `None`.
    """

    call: int
    error: BaseException | None


class RequestBegan(NamedTuple):
    """A model call is about to be asked of an engine; its `CallSettled` follows.

    Args:
        call: The call's number.
        body: As in `CallSettled`.
        item: As in `CallSettled`.
        model: What a person calls the model.
        sampling: How the answer is sampled, as `llm` names it.
        headers: What an engine behind HTTP sends along, by name; an observer may add to it.
    """

    call: int
    body: OperatorCall | None
    item: int | None
    model: str
    sampling: Any
    headers: dict[str, str]


class CallSettled(NamedTuple):  # the most frequent event: a dataclass costs four times as much
    """A pure or model call has its outcome.

    Args:
        kind: Whether a model or a pure operator was called.
        label: What a person calls it.
        source: How the outcome came about.
        usage: When and how much, shared with all that got the same answer.
        error: The exception, or `None`.
        calls_below: Of a call that was neither run nor asked: the model calls that the plain
            program would have made for it besides, as in a pure operator's body. -1 for a model
            call that was counted so before, and is asked all the same.
        call: The call's number in the session; 0 where nobody but the summary observes.
        body: The operator call in whose body it was made; `None` outside of any.
        leader: The number of the call that asked for the answer; its own, if it did.
        item: The top-level item that it was made for, by how many were read before it in the
            session; `None` outside of any.
        model: What a person calls the model; "" for an operator.
        inputs: The numbers of the calls whose Refs went into it.
    """

    kind: Literal["llm", "operator"]
    label: str
    source: Source
    usage: Usage
    error: BaseException | None
    calls_below: int = 0
    call: int = 0
    body: OperatorCall | None = None
    leader: int = 0
    item: int | None = None
    model: str = ""
    inputs: tuple[int, ...] = ()

    @property
    def parent(self) -> int:
        """The number of the operator call in whose body it was made; 0 outside of any."""
        return 0 if self.body is None else self.body.number

    @property
    def caller(self) -> str:
        """The name of the operator in whose body it was made; "" outside of any."""
        return "" if self.body is None else self.body.name


WhyNoGuess = Literal[
    "", "not shared", "never alike", "nobody", "nothing seen", "not said", "no cost", "off",
    "improbable", "not worth it",
]  # fmt: skip
"""Why nothing was computed early on a guess of a call: something was, or might have been; equal
calls are not one; its body differs when it is run again; nobody guesses such calls, nor could they;
too little like it was seen; `predict=` said nothing; nobody knows what a step of its engine costs;
guesses there did not pay; it was not probable enough, or one of too many; what followed was not
worth its cost."""


class Guessed(NamedTuple):
    """The answer of a call in the body of a pure operator is there: what was guessed of it.

    Args:
        call: Its number.
        site: What it has in common with calls of which one tells about another.
        source: Who guessed, as in `Speculated`; "" where nobody did.
        probability: At least, of what was guessed right, or else of the likeliest guess.
        is_right: Whether one of the guesses was; `None` where there was none.
        why: Why nothing was computed early on it.
    """

    call: int
    site: str
    source: str
    probability: float
    is_right: bool | None
    why: WhyNoGuess


class Speculated(NamedTuple):
    """What was computed before anybody had asked for it was asked for, or is given up.

    Args:
        label: What a person calls the call.
        source: Who guessed what made it likely: "predict" (the program's own function), ...
        probability: Of that guess, as who guessed saw it.
        is_used: Whether it was asked for.
        saved_s: How long it had been computed by then.
        wasted_tokens: That an engine computed for it for nothing.
        call: The number of the call that asked for it; 0 where none did.
    """

    label: str
    source: str
    probability: float
    is_used: bool
    saved_s: float
    wasted_tokens: int
    call: int = 0


Event = (
    EngineStarting
    | EngineStarted
    | EngineLost
    | EngineDescribed
    | EngineStepped
    | ModelOpened
    | WorkflowBegan
    | WorkflowEnded
    | MapOpened
    | ItemOpened
    | ItemClosed
    | Planned
    | ScheduleChosen
    | ProfileMisfit
    | SpansLost
    | CallMissed
    | CallMade
    | BodyBegan
    | BodyEnded
    | RequestBegan
    | RequestAnswered
    | ToolEnded
    | CallSettled
    | Speculated
    | Guessed
)
Observer = Callable[[Event], None]
