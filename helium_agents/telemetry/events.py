"""What happens in a session, as immutable events handed to observers.

Observers are plain callables; progress bars, summaries and tracers are nothing else. They run on
the event loop and must be quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
class MapOpened:
    """A `map` began; `num_items` is `None` where the input has no length."""

    num_items: int | None
    is_nested: bool


@dataclass(frozen=True, slots=True)
class ItemOpened:
    """An item of a `map` began."""

    index: int
    is_nested: bool


@dataclass(frozen=True, slots=True)
class ItemClosed:
    """An item of a `map` ended."""

    index: int
    is_nested: bool
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Planned:
    """A frontier was planned: how many nodes it had before and after the rules, and how long."""

    num_nodes: int
    num_computed: int
    seconds: float


class CallSettled(NamedTuple):  # the most frequent event: a dataclass costs four times as much
    """A pure or model call has its outcome.

    Args:
        kind: Whether a model or a pure operator was called.
        label: What a person calls it.
        source: How the outcome came about.
        prompt_tokens: Prompt tokens of the answer, whether or not they were sent this time.
        cached_tokens: Those of them that the engine had in its prefix cache (source "engine").
        output_tokens: Tokens of the answer, whether or not they were computed this time.
        error: The exception, or `None`.
        start_s: When it was demanded, by the event loop's clock.
        end_s: When it was settled, by the event loop's clock.
        calls_below: Of a call that was neither run nor asked: the model calls that the plain
            program would have made for it besides, as in a pure operator's body. -1 for a model
            call that was counted so before, and is asked all the same.
    """

    kind: Literal["llm", "operator"]
    label: str
    source: Source
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    error: BaseException | None
    start_s: float
    end_s: float
    calls_below: int = 0


Event = (
    EngineStarting
    | EngineStarted
    | EngineLost
    | MapOpened
    | ItemOpened
    | ItemClosed
    | Planned
    | CallSettled
)
Observer = Callable[[Event], None]
