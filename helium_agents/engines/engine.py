"""The engine port: what the runtime asks of whatever computes answers.

An engine knows nothing of plans, keys or memos. It renders a conversation to token ids with its
model's own template, and completes requests; cancelling `complete` aborts the request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from helium_agents.graph.reply import Choice as Choice
from helium_agents.graph.reply import FinishReason as FinishReason
from helium_agents.graph.sampling import Sampling as Sampling


class ChatMessage(NamedTuple):
    """One message of a rendered conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of streamed text of choice number `index`."""

    index: int
    text: str


OnDelta = Callable[[Delta], None]
"""Called with each piece of text as it comes."""


def _a_request() -> str:
    return "a request"


def nobody() -> None:
    """Nobody is to hear the text."""
    return None


@dataclass(slots=True, eq=False)  # frozen ones take four times as long to make
class Request:
    """One request, with what those between a call and its engine need to know of it.

    Args:
        request_id: Unique in this process.
        messages: The conversation.
        prompt_token_ids: The conversation as `Engine.render` gave it.
        sampling: How to sample; `sampling.n` answers are wanted.
        json_schema: JSON schema text that the answer must satisfy, or `None`.
        priority: Lower runs first.
        model: The engine's name in the session, or `None` for the default.
        item: The item of a top-level `map` that it is wanted for, by how many were read before it
            in the session; `None` outside of any.
        depth: How many calls its call is inside of.
        describe: Gives what a person calls its call, for errors.
        on_attempt: Called when an engine is about to compute it, and again after a death; gives
            who is to hear the text, if anybody.
    """

    request_id: str
    messages: tuple[ChatMessage, ...]
    prompt_token_ids: Sequence[int]
    sampling: Sampling
    json_schema: str | None = None
    priority: int = 0
    model: str | None = None
    item: int | None = None
    depth: int = 0
    describe: Callable[[], str] = _a_request
    on_attempt: Callable[[], OnDelta | None] = nobody

    @property
    def max_tokens(self) -> int:
        """Most tokens of one answer."""
        return self.sampling.max_tokens

    def forget_call(self) -> None:
        """Let go of the call: an engine may keep what it was asked, but not for whom."""
        self.describe, self.on_attempt = _a_request, nobody


class Completion(NamedTuple):
    """What an engine returns for a request.

    Args:
        choices: As many as `sampling.n`.
        cached_tokens: Prompt tokens that the engine had in its prefix cache.
        first_token_s: When the first token came, by the event loop's clock, where it is known.
    """

    choices: tuple[Choice, ...]
    cached_tokens: int = 0
    first_token_s: float | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an engine can hold.

    Args:
        kv_tokens: Tokens of KV cache in all.
        block_tokens: Tokens per KV block.
        max_model_tokens: Most tokens of one prompt and its answer together.
        max_requests: Requests computed in one step.
    """

    kv_tokens: int
    block_tokens: int
    max_model_tokens: int
    max_requests: int


class Model(Protocol):
    """A model that can be asked, by one engine or by several replicas of it.

    It may serve several sessions one after another in the same event loop. Sessions start it at the
    first request that the memo cannot answer, and never close one they were given already started.
    """

    @property
    def name(self) -> str:
        """What a person calls the model."""
        ...

    @property
    def capacity(self) -> Capacity | None:
        """What the engine can hold; `None` before `start`, or where there is no limit."""
        ...

    @property
    def is_started(self) -> bool:
        """Whether `start` has finished and `close` was not called since.

        An engine that died counts as started all the same: to start it again is the business of
        whoever finds it dead, to close it that of whoever started it first.
        """
        ...

    def identity(self) -> str:
        """Digest of everything that decides an answer, without starting the engine.

        Weights, tokenizer and chat template, dtype, quantisation, adapter, engine version.
        """
        ...

    async def start(self) -> None:
        """Load the model. Idempotent; concurrent calls wait for the same start.

        An engine that died is started anew.

        Raises:
            EngineStartError: The model does not load; the message says why and what to do.
        """
        ...

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The greedy answer cut to `max_tokens`, exactly as if it had been asked for so.

        Works without a started engine. `None` where that cannot be done exactly.
        """
        ...

    async def close(self) -> None:
        """Stop the engine and everything it started. Idempotent."""
        ...


class Engine(Model, Protocol):
    """Computes answers. Adapters: `VLLM`, `ScriptedEngine`."""

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        """Token ids of the conversation in the model's own template, ready for the answer."""
        ...

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        """Compute the request; cancelling this aborts it.

        Args:
            request: What to compute.
            on_delta: Called with each piece of text as it comes. `None`: no streaming is needed.

        Raises:
            RequestError: This request is at fault.
            TransientEngineError: It may work when tried again.
            EngineDied: The engine is gone, and with it every open request; `start` revives it.
        """
        ...


@runtime_checkable
class PartedIdentity(Protocol):
    """An engine that can say what its identity is made of, for people who wonder what changed."""

    def identity_parts(self) -> dict[str, str]:
        """What `Engine.identity` digests, by name: the weights, the tokenizer, the dtype, ..."""
        ...
