"""Nodes: one per call that was asked for, with its keys, its inputs and, once known, its outcome.

A node knows what was asked; it does not know how it is run. These names it has, each a digest:

    content       what is asked, apart from its inputs
    question      the content apart from `max_tokens`, of a call with one greedy answer
    key           the content with the inputs' keys: calls with equal keys have equal answers
    record_key    the question, or else the content, with the inputs' keys: the memo's key
    run_key       the key, or of a call without one its place in the run
    sibling_key   what tells a call of an operator from others in the same body

`runtime.answers` makes two more: the alias key of a call (its record key before its inputs were
known, which leads to the record), and the run log's key of a draw.
"""

from __future__ import annotations

import asyncio
import inspect
from types import CodeType
from typing import Any

from blake3 import blake3

from helium_agents.errors import EncodingError, SessionError, VersionError
from helium_agents.graph.body import Body
from helium_agents.graph.models import NO_MODELS
from helium_agents.graph.outcome import Outcome
from helium_agents.graph.sibling_key import sibling_key
from helium_agents.graph.trace import Frame, Tally
from helium_agents.graph.values import map_slots
from helium_agents.keys.encoding import encode, fingerprint, freeze


class Node:
    """One call. See the module's first lines.

    Args:
        frame: The caller's frame.
        label: What a person calls it.
        inputs: Nodes whose values this call needs, in order of first use.
        content: Digest of what is asked apart from the inputs; `None` for calls without a key.
        record_content: The same as far as it counts for the memo: the question, where there is one.
        timeout_s: Seconds that a waiter grants this call, counted from when its turn has come.

    Attributes:
        key: The fingerprint; `None` for calls without one and where an input has none.
        record_key: What the answer is kept under; the key, except for a single greedy answer: that
            is kept under its question, so that one record serves every length that it covers.
        is_drawn: Whether the answer depends on an unseeded draw that the graph knows of.
        is_planned: Whether the session plans and runs it; a plain operator runs in its awaiter.
        awaiter: The frame in which a plain operator was first awaited, and runs.
        num_spared: Model calls that were counted as saved in it when a call that it is an input of
            was answered without it; `None` where that was not so.
        number: Counts the calls of the session from 1, where somebody observes; 0 otherwise.
        place: Where in the user's code the call was made.
    """

    __slots__ = (
        "__weakref__", "_run_key", "awaiter", "content", "flight", "frame", "inputs", "is_drawn",
        "is_planned", "key", "label", "num_spared", "number", "outcome", "place", "record_key",
        "timeout_s",
    )  # fmt: skip

    def __init__(
        self,
        frame: Frame,
        label: str,
        inputs: tuple[Node, ...],
        content: bytes | None,
        record_content: bytes | None,
        timeout_s: float | None,
    ) -> None:
        self.frame = frame
        self.label = label
        self.inputs = inputs
        self.content = self.key = content
        self.record_key = record_content
        self.timeout_s = timeout_s
        self.outcome: Outcome | None = None
        self.flight: Any = None
        self.awaiter: Frame | None = None
        self.place: tuple[CodeType, int] | None = None
        self.is_drawn = False
        self.is_planned = True
        self.num_spared: int | None = None
        self.number = 0
        self._run_key: bytes | None = None
        if inputs:
            self._add_inputs(record_content)

    def _add_inputs(self, record_content: bytes | None) -> None:
        """Let the keys depend on those of the inputs, which are there: nothing recurses."""
        keys = []
        for source in self.inputs:
            if source.frame.runner is not self.frame.runner:
                raise SessionError(
                    f"{self.label}(...) was given the Ref of {source.label}(...), which belongs "
                    f"to another session: await it there and pass its value"
                )
            self.is_drawn = self.is_drawn or source.is_drawn
            if source.key is not None:
                keys.append(source.key)
        content = self.content
        if content is None or len(keys) < len(self.inputs):
            self.key = self.record_key = None
            return
        self.key = self.record_key = join_digests(b"d", content, *keys)
        if record_content is not None and record_content is not content:
            self.record_key = join_digests(b"r", record_content, *keys)

    def _set_run_key(self, content: bytes | None) -> None:
        """Of a planned call without a key: where it was made is in the inputs or the content."""
        self._run_key = join_digests(
            b"i", content or b"", *(source.run_key for source in self.inputs)
        )

    @property
    def run_key(self) -> bytes:
        """What tells the call from others of the same run: its key, or else where it was made."""
        run_key = self.key or self._run_key
        assert run_key is not None
        return run_key

    @property
    def is_asked(self) -> bool:
        """Whether a planned call is answered, or its answer is under way."""
        return self.outcome is not None or self.flight is not None

    def settle(self, outcome: Outcome) -> None:
        """Keep the outcome and let go of what was only needed to compute it."""
        self.inputs = ()
        self.outcome = outcome
        self.flight = self.awaiter = None


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
        "args",
        "body",
        "is_running",
        "kwargs",
        "ordinal",
        "origin",
        "sibling_key",
        "task",
        "told_as",
        "version",
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
        self.body = body
        self.args = args
        self.kwargs = kwargs
        self.origin = origin
        self.is_running = False  # in the task of a first awaiter
        self.task: asyncio.Task[Any] | None = None  # that of the first awaiter
        self.waiters: dict[Any, None] | None = None  # who else waits for that
        self.told_as: Any = None  # what events call it, once one has
        key: Any
        if body.is_pure:
            self.version: bytes | str = body.version if origin is None else origin.version
            # also in the plain program, which refuses the same calls
            key = self._content_of_pure(frame)
            Node.__init__(self, frame, body.name, inputs, key, key, body.timeout_s)
            if self.key is None:
                self._set_run_key(key)
            # what the caller changes later is not part of the call
            try:
                self.args, self.kwargs = freeze(args), freeze(kwargs)
            except EncodingError as error:
                raise self._unencodable_argument(error) from error.__cause__
        else:
            Node.__init__(self, frame, body.name, inputs, None, None, body.timeout_s)
            self.is_planned = False
            if origin is None:
                key = sibling_key(args, kwargs)
                if inputs:
                    key = fingerprint(key, *(source.run_key for source in inputs))
        if origin is None:
            self.sibling_key: Any = key
            self.ordinal: int = frame.next_ordinal(body.identity, key)
        else:
            self.sibling_key, self.ordinal = origin.sibling_key, origin.ordinal

    def _content_of_pure(self, frame: Frame) -> bytes:
        """Operator, version, arguments, and all models of the session: its body may ask any."""
        body = self.body
        models = NO_MODELS if frame.runner is None else frame.runner.models
        asked = body.identity, self.version, models.identity
        try:
            return fingerprint("operator", *asked, self.args, self.kwargs)
        except EncodingError as error:
            raise self._unencodable_argument(error) from error.__cause__

    def is_current(self) -> bool:
        """Whether what a pure operator names is still what its key says, after it has run."""
        try:
            return self.body.version == self.version
        except VersionError:
            return False

    def _unencodable_argument(self, error: EncodingError) -> EncodingError:
        """The error with the argument's name in it, instead of its position in our key."""
        bound = inspect.signature(self.body.fn).bind(*self.args, **self.kwargs)
        for name, argument in bound.arguments.items():
            try:
                encode({name: argument})
                freeze(argument)
            except EncodingError as named:
                what = str(named).replace("the value", name, 1)  # `freeze` does not know its name
                error = named if named.path else EncodingError(what, name)
                break
        name = self.body.name
        return EncodingError(
            f"{name}(...) is pure, so its arguments are part of its key, but {error}", error.path
        )

    @property
    def run_key(self) -> bytes:
        """The key, or for a plain operator the path of the call."""
        if self.body.is_pure:
            return super().run_key
        if self._run_key is None:
            body = self.body
            self._run_key = fingerprint(
                self.frame.path, body.identity, self.sibling_key, self.ordinal
            )
        return self._run_key

    def body_frame(self, attempt: int, item: Any, tally: Tally | None) -> Frame:
        """The frame in which the body runs for the given attempt.

        Args:
            attempt: Counts from 0.
            item: The item of a `map` that the body works for.
            tally: Counts the model calls made in it, for a pure operator.
        """
        body, above = self.body, self.frame
        frame = Frame(
            above.runner,
            above,
            (body.identity, self.sibling_key, self.ordinal, attempt),
            body.is_pure or above.is_pure,
            item,
            self if self.origin is None else self.origin,
        )
        if tally is not None:
            frame.tally = tally
        return frame

    def with_values(self, values: tuple[Any, ...]) -> OperatorNode:
        """The same call with the inputs' values in place of the inputs."""
        return OperatorNode(
            self.frame,
            self.body,
            tuple([map_slots(argument, values) for argument in self.args]),
            {name: map_slots(argument, values) for name, argument in self.kwargs.items()},
            origin=self,
        )

    def settle(self, outcome: Outcome) -> None:
        """Keep the outcome and let go of the arguments."""
        self.inputs = ()
        self.outcome = outcome
        self.flight = self.awaiter = self.task = None
        self.args, self.kwargs, self.is_running = (), {}, False


def join_digests(tag: bytes, *digests: bytes) -> bytes:
    """The digest of some digests under a tag; tags are of one byte, digests of 32."""
    return blake3(tag + b"".join(digests)).digest()
