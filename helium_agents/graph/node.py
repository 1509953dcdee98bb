"""Nodes: one per call that was asked for, with its key, its inputs and, once known, its outcome.

A node knows what was asked; it does not know how it is run. `content` is the digest of what is
asked apart from its inputs; `key` adds the keys of the inputs. Two calls with equal keys have
equal answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from types import CodeType, TracebackType
from typing import Any

from helium_agents.errors import EncodingError, SessionError
from helium_agents.graph.encoding import encode, fingerprint, freeze
from helium_agents.graph.llm_key import join_digests, question_digest
from helium_agents.graph.sampling import Sampling
from helium_agents.graph.trace import Frame
from helium_agents.graph.values import Slot, map_slots
from helium_agents.graph.version import class_version, function_version


@dataclass(slots=True)
class Value:
    """A call returned."""

    value: Any

    def get(self) -> Any:
        """The value."""
        return self.value


@dataclass(slots=True)
class Failure:
    """A call raised; the traceback is the one of the first raise."""

    exception: BaseException
    traceback: TracebackType | None

    def get(self) -> Any:
        """Raise the exception as it was raised first."""
        raise self.exception.with_traceback(self.traceback)


Outcome = Value | Failure


class Body:
    """What an operator runs: its function and how it may be run.

    Args:
        fn: The coroutine function.
        name: What a person calls the operator.
        is_pure: Whether equal calls have equal results and no effects.
        explicit_version: Stands for the source where given.
        retries: Further attempts after a transient failure.
        timeout_s: Seconds that a waiter grants one call, counted from admission.
    """

    def __init__(
        self,
        fn: Callable[..., Awaitable[Any]],
        name: str,
        *,
        is_pure: bool,
        explicit_version: str | None,
        retries: int,
        timeout_s: float | None,
    ) -> None:
        self.fn = fn
        self.name = name
        self.is_pure = is_pure
        self.explicit_version = explicit_version
        self.retries = retries
        self.timeout_s = timeout_s
        self.is_bare = timeout_s is None and not retries  # one attempt, as long as it takes
        self.owner: type | None = None
        self.identity = f"{fn.__module__}:{getattr(fn, '__qualname__', name)}"

    @cached_property
    def version(self) -> bytes | str:
        """The explicit version, or the digest of everything the function's source depends on."""
        if self.explicit_version is not None:
            return self.explicit_version
        version = function_version(self.fn)
        return version if self.owner is None else fingerprint(version, class_version(self.owner))

    def of(self, owner: type) -> Body:
        """The same as a method of `owner`, which may override what the method calls."""
        bound = copy(self)
        bound.owner = owner
        bound.__dict__.pop("version", None)
        return bound


class Node:
    """One call. See the module's first lines.

    Args:
        frame: The caller's frame.
        label: What a person calls it.
        inputs: Nodes whose values this call needs, in order of first use.
    """

    __slots__ = (
        "__weakref__", "_settled_key", "flight", "frame", "inputs", "label", "outcome", "place",
    )  # fmt: skip

    def __init__(self, frame: Frame, label: str, inputs: tuple[Node, ...]) -> None:
        self.frame = frame
        self.label = label
        self.inputs = inputs
        if inputs:
            self._check_inputs()
        self.outcome: Outcome | None = None
        self.flight: Any = None
        self._settled_key: tuple[bytes | None, bool, bytes] | None = None
        self.place: tuple[CodeType, int] | None = None  # where the call was made

    def _check_inputs(self) -> None:
        for source in self.inputs:
            if source.frame.runner is not self.frame.runner:
                raise SessionError(
                    f"{self.label}(...) was given the Ref of {source.label}(...), which belongs "
                    f"to another session: await it there and pass its value"
                )

    @property
    def is_planned(self) -> bool:
        """Whether the session plans and runs this call; a plain operator runs in its awaiter."""
        return True

    @property
    def content(self) -> bytes | None:
        """Digest of what is asked apart from the inputs; `None` for calls without a key."""
        raise NotImplementedError

    @property
    def key(self) -> bytes | None:
        """The fingerprint; `None` for calls without one and while an input has none."""
        if self._settled_key is not None:
            return self._settled_key[0]
        content = self.content
        if content is None or not self.inputs:
            return content
        keys = [node.key for node in self.inputs]
        return None if None in keys else join_digests(b"d", content, *keys)  # type: ignore[arg-type]

    @property
    def identity(self) -> bytes:
        """What tells the call from others of the same run: its key, or else where it was made."""
        if self._settled_key is not None:
            return self._settled_key[2]
        key = self.key
        if key is not None:
            return key
        return join_digests(b"i", self.content or b"", *(node.identity for node in self.inputs))

    @property
    def is_drawn(self) -> bool:
        """Whether the answer depends on an unseeded draw that the graph knows of."""
        if self._settled_key is not None:
            return self._settled_key[1]
        return bool(self.inputs) and any(node.is_drawn for node in self.inputs)

    @property
    def timeout_s(self) -> float | None:
        """Seconds that a waiter grants this call, counted from admission."""
        raise NotImplementedError

    def settle(self, outcome: Outcome) -> None:
        """Keep the outcome and let go of what was only needed to compute it."""
        if self.inputs:
            self._settled_key = self.key, self.is_drawn, self.identity
            self.inputs = ()
        self.outcome = outcome
        self.flight = None


class OperatorNode(Node):
    """A call of an operator.

    Args:
        frame: The caller's frame.
        body: The operator.
        args: Positional arguments; slots stand for inputs.
        kwargs: Keyword arguments; slots stand for inputs.
        inputs: The calls whose values go into the slots.
        origin: The same call before its inputs were known.
    """

    __slots__ = (
        "_content",
        "args",
        "body",
        "call_key",
        "is_running",
        "kwargs",
        "ordinal",
        "origin",
        "waiters",
    )  # fmt: skip

    def __init__(
        self,
        frame: Frame,
        body: Body,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: tuple[Node, ...] = (),
        origin: OperatorNode | None = None,
    ) -> None:
        self.frame = frame  # as in `Node`, spelled out: this is most of what a plain call costs
        self.label = body.name
        self.inputs = inputs
        if inputs:
            self._check_inputs()
        self.outcome = self.flight = self._settled_key = self.place = None
        self.body = body
        self.args = args
        self.kwargs = kwargs
        self.origin = origin
        self.is_running = False  # in the task of a first awaiter
        self.waiters: list[Any] | None = None  # who else waits for that
        self._content: bytes | None = None
        key: Any
        if body.is_pure:
            key = self.content  # also in the plain program, which refuses the same calls
            # what the caller changes later is not part of the call
            self.args, self.kwargs = freeze(args), freeze(kwargs)
        elif origin is None:
            key = _best_effort_key(args, kwargs)
            if inputs:
                key = (key, *(source.identity for source in inputs))
        if origin is None:
            self.call_key: Any = key
            self.ordinal: int = frame.next_ordinal(body.identity, key)
        else:
            self.call_key, self.ordinal = origin.call_key, origin.ordinal

    @property
    def is_planned(self) -> bool:
        """Whether the operator is pure."""
        return self.body.is_pure

    @property
    def content(self) -> bytes | None:
        """Operator, version and arguments; `None` for a plain operator."""
        if not self.body.is_pure:
            return None
        if self._content is None:
            body = self.body
            try:
                self._content = fingerprint(
                    "operator", body.identity, body.version, self.args, self.kwargs
                )
            except EncodingError as error:
                raise self._unencodable_argument(error) from None
        return self._content

    @property
    def timeout_s(self) -> float | None:
        """The operator's `timeout=`."""
        return self.body.timeout_s

    def _unencodable_argument(self, error: EncodingError) -> EncodingError:
        """The error with the argument's name in it, instead of its position in our key."""
        bound = inspect.signature(self.body.fn).bind(*self.args, **self.kwargs)
        try:
            encode(bound.arguments)
        except EncodingError as named:
            error = named
        name = self.body.name
        return EncodingError(
            f"{name}(...) is pure, so its arguments are part of its key, but {error}", error.path
        )

    @property
    def identity(self) -> bytes:
        """The key, or for a plain operator the path of the call."""
        if self.body.is_pure:
            return super().identity
        return fingerprint(self.frame.path, self.body.identity, self.call_key, self.ordinal)

    def body_frame(self, attempt: int, item: Any) -> Frame:
        """The frame in which the body runs for the given attempt."""
        body, above = self.body, self.frame
        return Frame(
            above.runner,
            above,
            (body.identity, self.call_key, self.ordinal, attempt),
            body.is_pure or above.is_pure,
            item,
            self if self.origin is None else self.origin,
        )

    def with_values(self, values: tuple[Any, ...]) -> OperatorNode:
        """The same call with the inputs' values in place of the inputs."""
        return OperatorNode(
            self.frame,
            self.body,
            map_slots(self.args, values),
            map_slots(self.kwargs, values),
            origin=self,
        )

    def settle(self, outcome: Outcome) -> None:
        """Keep the outcome and let go of the arguments."""
        if self.inputs:
            super().settle(outcome)
        self.outcome = outcome
        self.flight = None
        self.args, self.kwargs, self.is_running = (), {}, False


Part = str | Slot
"""A piece of message content: text, or the place of an input's text."""


@dataclass(slots=True)  # frozen ones take four times as long to make
class LlmCall:
    """What one `llm(...)` call asks for.

    Args:
        messages: Pairs of a role and its content's parts; neighbouring texts are joined.
        sampling: How to sample.
        schema: Anything pydantic can validate, or `None`.
        json_schema: The JSON schema text of `schema`, or `None`.
        model: The engine's name in the session, or `None` for the default.
        is_shared: Whether equal calls may be merged and remembered.
        retries: Further attempts after a transient failure or, for a sampled reply, an invalid one.
        timeout_s: Seconds that a waiter grants, counted from admission.
    """

    messages: tuple[tuple[str, tuple[Part, ...]], ...]
    sampling: Sampling
    schema: Any = None
    json_schema: str | None = None
    model: str | None = None
    is_shared: bool = True
    retries: int = 2
    timeout_s: float | None = None


class LlmNode(Node):
    """A call of a model.

    Args:
        frame: The caller's frame.
        call: What is asked.
        inputs: The calls whose texts go into the slots.
        draw: What identifies an unseeded sample; computed where it is one and this is left out.

    Attributes:
        question: Digest of model, messages, sampling without `max_tokens`, and schema.
        family: The question, where answers of different lengths are prefixes: that is so for one
            greedy answer; `None` otherwise.
    """

    __slots__ = ("_content", "_draw", "call", "family", "model_key", "question")

    def __init__(
        self, frame: Frame, call: LlmCall, inputs: tuple[Node, ...] = (), draw: bytes | None = None
    ) -> None:
        Node.__init__(self, frame, "llm", inputs)
        sampling = call.sampling
        self.call = call
        self.model_key = b"" if frame.runner is None else frame.runner.model_key(call.model)
        self.question = question_digest(self.model_key, call.messages, sampling, call.json_schema)
        self.family = self.question if sampling.has_prefixes else None
        self._content: bytes | None = None
        self._draw = draw
        if draw is None and not sampling.is_deterministic:
            asked = join_digests(b"a", self._content_of(b""), *(node.identity for node in inputs))
            ordinal = frame.next_ordinal("llm", asked)
            self._draw = fingerprint(frame.path, "llm", asked, ordinal)

    @property
    def content(self) -> bytes:
        """Model, messages, sampling, schema, and the draw of an unseeded sample."""
        if self._content is None:
            self._content = self._content_of(self._draw or b"")
        return self._content

    def _content_of(self, draw: bytes) -> bytes:
        length = self.call.sampling.max_tokens.to_bytes(32)
        return join_digests(b"c", self.question, length, draw)

    @property
    def is_drawn(self) -> bool:
        """Whether this is an unseeded sample, or depends on one."""
        if self._draw is not None or not (self.inputs or self._settled_key):
            return self._draw is not None
        return super().is_drawn

    @property
    def timeout_s(self) -> float | None:
        """The call's `timeout=`."""
        return self.call.timeout_s

    def with_values(self, values: tuple[Any, ...]) -> LlmNode:
        """The same call with the inputs' texts in place of the inputs."""
        call = replace(self.call, messages=fill_messages(self.call.messages, values))
        return LlmNode(self.frame, call, draw=self._draw)

    def with_attempt(self, attempt: int) -> LlmNode:
        """A further draw of a sampled call: another seed, or another unseeded draw."""
        sampling = self.call.sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=(sampling.seed + attempt) % 2**31)
        draw = None if self._draw is None else fingerprint(self._draw, attempt)
        return LlmNode(self.frame, replace(self.call, sampling=sampling), self.inputs, draw)


def fill_messages(
    messages: tuple[tuple[str, tuple[Part, ...]], ...], values: tuple[Any, ...]
) -> tuple[tuple[str, tuple[Part, ...]], ...]:
    """Messages with every slot replaced by its value's text."""
    return tuple(
        (role, ("".join(p if isinstance(p, str) else values[p.index] for p in parts),))
        for role, parts in messages
    )


_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})


def _best_effort_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What tells siblings of a plain operator apart, where its arguments can be encoded.

    Scalars stand for themselves, with their types, since 1 and 1.0 are equal; the rest is digested
    now, for it may change later.
    """
    if not kwargs:
        for arg in args:
            if type(arg) is not str:
                break
        else:
            return args
        if _SCALARS.issuperset(map(type, args)):
            return args, tuple(type(arg).__name__ for arg in args)
    try:
        return fingerprint(args, kwargs)
    except EncodingError:
        return ()
