"""Events of calls: made, missed, running and settled, and how each got its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Source = Literal["engine", "body", "memo", "earlier", "merged", "joined", "prefix"]
"""How a call got its answer: the engine computed it; the operator's body ran; the memo had it
before the session began; it was remembered earlier in the same session; a rule merged it with an
equal call; it joined an equal call in flight; it was cut from a longer answer."""


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
