"""Events of engines: their lives, what they are able to do, and what they are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from helium_agents.telemetry.call_events import OperatorCall


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
