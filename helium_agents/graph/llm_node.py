"""A call of a model, as a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blake3 import blake3

from helium_agents.graph.models import NO_MODELS
from helium_agents.graph.node import Node, join_digests
from helium_agents.graph.reply_schema import ReplySchema
from helium_agents.graph.sampling import Sampling
from helium_agents.graph.tool_call import Beside
from helium_agents.graph.tools import ToolSet, key_beside
from helium_agents.graph.trace import Frame
from helium_agents.graph.values import Slot
from helium_agents.keys.encoding import fingerprint

Part = str | Slot
"""A piece of message content: text, or the place of an input's text."""


@dataclass(slots=True)  # frozen ones take four times as long to make
class LlmCall:
    """What one `llm(...)` call asks for.

    Args:
        messages: Pairs of a role and its content's parts; neighbouring texts are joined.
        sampling: How to sample.
        schema: What the reply must fit, or `None`.
        json_schema: The JSON schema text of `schema`, or `None`.
        model: The engine's name in the session, or `None` for the default.
        is_shared: Whether equal calls may be merged and remembered.
        retries: Further attempts after a transient failure or, for a sampled reply, an invalid one.
        timeout_s: Seconds that a waiter grants, counted from when its turn has come.
        tools: What the model may call, or `None`.
        beside: What each message has beside its text; empty where none has anything.
        predict: Guesses the answer from the messages; see `llm`. It is no part of the key.
    """

    messages: tuple[tuple[str, tuple[Part, ...]], ...]
    sampling: Sampling
    schema: ReplySchema | None = None
    json_schema: str | None = None
    model: str | None = None
    is_shared: bool = True
    retries: int = 2
    timeout_s: float | None = None
    tools: ToolSet | None = None
    beside: tuple[Beside | None, ...] = ()
    predict: Callable[[Any], Any] | str | None = None


class LlmNode(Node):
    """A call of a model.

    Args:
        frame: The caller's frame.
        call: What is asked.
        inputs: The calls whose texts go into the slots.
        draw: What identifies an unseeded sample; computed where it is one and this is left out.

    Attributes:
        question: Digest of what is asked apart from its inputs and its length, where a shorter
            answer is the beginning of a longer one: of one greedy answer; `None` otherwise.
        draws_again: Whether a reply that does not fit `schema=` is followed by another draw. Each
            draw is a call of its own (see `attempt`), which may be shared; this one is not, since
            who judges the draws, and how many are drawn, is no part of a key.
        on_settled: Called with the event of how the call was answered (`CallSettled`), or `None`.
    """

    __slots__ = ("_draw", "call", "draws_again", "model_identity", "on_settled", "question")

    def __init__(
        self, frame: Frame, call: LlmCall, inputs: tuple[Node, ...] = (), draw: bytes | None = None
    ) -> None:
        sampling = call.sampling
        model = (NO_MODELS if frame.runner is None else frame.runner.models)[call.model]
        beside = key_beside(call.tools, call.beside) if call.tools or call.beside else b""
        question = question_digest(
            model.identity, call.messages, sampling, call.json_schema, beside
        )
        content = _content_of(question, sampling, draw or b"")
        if draw is None and not sampling.is_deterministic:
            asked = join_digests(b"a", content, *(node.run_key for node in inputs))
            draw = fingerprint(frame.path, "llm", asked, frame.next_ordinal("llm", asked))
            content = _content_of(question, sampling, draw)
        self.call = call
        self.model_identity = model.identity
        has_prefixes = sampling.has_prefixes and model.truncates and call.tools is None
        self.question = question if has_prefixes else None
        self.draws_again = call.schema is not None and not sampling.is_greedy and call.retries > 0
        # Without sharing there is no key, since nothing that is built from its Ref may be answered
        # without asking it; a draw has one in any case, for the run log.
        has_key = not self.draws_again and (call.is_shared or draw is not None)
        key = content if has_key else None
        record = (self.question or content) if has_key else None
        Node.__init__(self, frame, "llm", inputs, key, record, call.timeout_s)
        self.on_settled: Callable[[Any], None] | None = None
        self._draw = draw
        self.is_drawn = self.is_drawn or draw is not None
        if self.key is None:
            self._set_run_key(content)

    def with_values(self, values: tuple[Any, ...]) -> LlmNode:
        """The same call with the inputs' texts in place of the inputs."""
        call = replace(self.call, messages=fill_messages(self.call.messages, values))
        return LlmNode(self.frame, call, draw=self._draw)

    def attempt(self, number: int) -> LlmNode:
        """One draw of a sampled call, without judging it: another seed, or another unseeded draw.

        Args:
            number: Counts from 0, which is the call as it was asked.
        """
        sampling, draw = self.call.sampling, self._draw
        if number and sampling.seed is not None:
            sampling = replace(sampling, seed=(sampling.seed + number) % 2**31)
        if number and draw is not None:
            draw = fingerprint(draw, number)
        call = replace(self.call, sampling=sampling, schema=None, timeout_s=None)
        return LlmNode(self.frame, call, draw=draw)


def question_digest(
    model_identity: bytes,
    messages: Sequence[tuple[str, Sequence[str | Slot]]],
    sampling: Sampling,
    json_schema: str | None,
    beside: bytes = b"",
) -> bytes:
    """32 bytes for a model, messages, sampling without `max_tokens`, schema, and tools.

    The hottest key of all, computed once per call. The general encoding would do, at ten times the
    cost. This one is as injective: every piece is preceded by its kind and its length, and the
    parts that have a fixed size come first.
    """
    pieces = [b"k%d:" % len(model_identity), model_identity, sampling.encoded]
    for role, parts in messages:
        data = role.encode()
        pieces += (b"m%d,%d:" % (len(data), len(parts)), data)
        for part in parts:
            if isinstance(part, str):
                data = part.encode("utf-8", "surrogatepass")
                pieces += (b"t%d:" % len(data), data)
            else:
                pieces.append(b"i%d:" % part.index)
    if json_schema is not None:
        data = json_schema.encode()
        pieces += (b"j%d:" % len(data), data)
    if beside:
        pieces += (b"b%d:" % len(beside), beside)
    return blake3(b"".join(pieces)).digest()


def _content_of(question: bytes, sampling: Sampling, draw: bytes) -> bytes:
    return join_digests(b"c", question, sampling.max_tokens.to_bytes(32), draw)


def fill_messages(
    messages: tuple[tuple[str, tuple[Part, ...]], ...], values: tuple[Any, ...]
) -> tuple[tuple[str, tuple[Part, ...]], ...]:
    """Messages with every slot replaced by its value's text."""
    return tuple(
        (role, ("".join(p if isinstance(p, str) else values[p.index] for p in parts),))
        for role, parts in messages
    )


_SHOWN_CHARACTERS = 60


def describe(node: Node) -> str:
    """A call as an error message names it."""
    if isinstance(node, LlmNode):
        role, parts = node.call.messages[-1]
        text = "".join(part if isinstance(part, str) else "{...}" for part in parts)
        is_long = len(text) > _SHOWN_CHARACTERS
        return f"llm({role}({text[:_SHOWN_CHARACTERS] + '...' if is_long else text!r}))"
    return f"{node.label}(...)"
