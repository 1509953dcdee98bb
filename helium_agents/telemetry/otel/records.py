"""Records: what the run tells of its spans, as small as it can be said.

They go through a pipe to the helper process, or straight to an application's own tracer. What
attributes become of them is decided there, in `attributes`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import astuple


class Sampled(Struct, array_like=True, frozen=True, gc=False):
    """How a model is asked, by the names of `graph.sampling.Sampling`."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    n: int
    seed: int | None
    stop: tuple[str, ...]
    presence_penalty: float
    frequency_penalty: float


class Workflow(Struct, array_like=True, frozen=True, gc=False, tag=0):
    """A `map`, or a `session.run`."""

    name: str
    num_rows: int | None
    run_id: str


class Row(Struct, array_like=True, frozen=True, gc=False, tag=1):
    """A row of a `map`."""

    workflow: str
    index: int


class Agent(Struct, array_like=True, frozen=True, gc=False, tag=2):
    """A call of an operator."""

    name: str


class Tool(Struct, array_like=True, frozen=True, gc=False, tag=3):
    """A tool that a model called."""

    name: str
    id: str


class Chat(Struct, array_like=True, frozen=True, gc=False, tag=4):
    """A call of a model; `sampled` is there where an engine is asked."""

    model: str
    provider: str
    server: tuple[str, int] | None
    operator: str
    sampled: Sampled | None


Work: TypeAlias = Workflow | Row | Agent | Tool | Chat


class Said(Struct, array_like=True, frozen=True, gc=False):
    """A conversation and its answers, where content is captured."""

    messages: tuple[tuple[str, str], ...]
    texts: tuple[str, ...]
    tool_calls: tuple[tuple[tuple[str, str], ...], ...]


class Answer(Struct, array_like=True, frozen=True, gc=False):
    """How a call came to its answer; times are seconds, `None` where they are not known."""

    source: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    queued_s: float | None
    first_token_s: float | None
    num_attempts: int
    calls_saved: int
    is_speculated: bool
    leader: tuple[bytes, int] | None
    finish_reasons: tuple[str, ...]
    said: Said | None


class Began(Struct, array_like=True, frozen=True, gc=False, tag=0):
    """A span began: `parent` is 0 where it has none, `trace` 16 bytes, times are since 1970."""

    span: int
    parent: int
    trace: bytes
    start_ns: int
    work: Work


class Ended(Struct, array_like=True, frozen=True, gc=False, tag=1):
    """A span ended; `error` is the class of what it failed with, and a message or "".

    Of a span whose end nobody told the class is "", and the message says why.
    """

    span: int
    end_ns: int
    error: tuple[str, str] | None
    answer: Answer | None


class Closed(Struct, array_like=True, frozen=True, gc=False, tag=2):
    """The run has ended in order: nothing follows."""

    end_ns: int


class Told(Struct, frozen=True):
    """What the helper tells of spans since it began.

    `trouble` is what does not work now, or ""; `is_down` whether the collector does not answer.
    """

    delivered: int
    lost: int
    trouble: str
    is_down: bool


Record: TypeAlias = Began | Ended | Closed


class Whole(NamedTuple):
    """All there is to know of a span; `is_entry` where its parent is not one of ours."""

    began: Began
    ended: Ended
    is_entry: bool


LENGTH_BYTES = 4
"""A batch of records is preceded by its length, in so many bytes, the highest first."""


def well_formed(value: Any) -> Any:
    """A record without what no encoding has: a lone surrogate in a text becomes a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, tuple):
        return tuple(map(well_formed, value))
    if isinstance(value, Struct):
        return type(value)(*map(well_formed, astuple(value)))
    return value
