"""A call of a model, as a node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from helium_agents.graph.llm_key import join_digests, question_digest
from helium_agents.graph.node import Node
from helium_agents.graph.reply_schema import ReplySchema
from helium_agents.graph.sampling import Sampling
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
    """

    messages: tuple[tuple[str, tuple[Part, ...]], ...]
    sampling: Sampling
    schema: ReplySchema | None = None
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
        question: Digest of what is asked apart from its inputs and its length, where a shorter
            answer is the beginning of a longer one: of one greedy answer; `None` otherwise.
        draws_again: Whether a reply that does not fit `schema=` is followed by another draw. Each
            draw is a call of its own (see `attempt`), which may be shared; this one is not, since
            who judges the draws, and how many are drawn, is no part of a key.
    """

    __slots__ = ("_draw", "call", "draws_again", "model_identity", "question")

    def __init__(
        self, frame: Frame, call: LlmCall, inputs: tuple[Node, ...] = (), draw: bytes | None = None
    ) -> None:
        Node.__init__(self, frame, "llm", inputs)
        sampling = call.sampling
        self.call = call
        runner = frame.runner
        identity, is_cuttable = (b"", True) if runner is None else runner.model(call.model)
        self.model_identity = identity
        question = question_digest(identity, call.messages, sampling, call.json_schema)
        self.question = question if sampling.has_prefixes and is_cuttable else None
        self._draw = draw
        if draw is None and not sampling.is_deterministic:
            content = _content_of(question, sampling, b"")
            asked = join_digests(b"a", content, *(node.run_key for node in inputs))
            ordinal = frame.next_ordinal("llm", asked)
            self._draw = fingerprint(frame.path, "llm", asked, ordinal)
        if self._draw is not None:
            self.is_drawn = True
        content = _content_of(question, sampling, self._draw or b"")
        self.draws_again = call.schema is not None and not sampling.is_greedy and call.retries > 0
        # Without sharing there is no key, since nothing that is built from its Ref may be answered
        # without asking it; a draw has one in any case, for the run log.
        has_key = not self.draws_again and (call.is_shared or self._draw is not None)
        if has_key:
            self._derive_keys(content, self.question or content)
        else:
            self._derive_keys(None, None)
            self._run_key = self._run_key_of(content)

    @property
    def timeout_s(self) -> float | None:
        """The call's `timeout=`."""
        return self.call.timeout_s

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
