"""The engine port: what the runtime asks of whatever computes answers.

An engine knows nothing of plans, keys or memos. What every engine must have is in `Engine`: a name,
an identity, and `complete`, which takes messages and gives text. All else is an ability of its own,
found by its methods; its docstring says what is lost without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from helium_agents.graph.reply import Choice as Choice
from helium_agents.graph.reply import FinishReason as FinishReason
from helium_agents.graph.sampling import Sampling as Sampling
from helium_agents.optimizer.step_cost import StepCost


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
        prompt_token_ids: The conversation as `Renders.render` gave it; empty where none did.
        sampling: How to sample; `sampling.n` answers are wanted.
        json_schema: JSON schema text that the answer must satisfy, or `None`.
        priority: Lower runs first.
        model: The engine's name in the session, or `None` for the default.
        item: The item of a top-level `map` that it is wanted for, by how many were read before it
            in the session; `None` outside of any.
        depth: How many calls its call is inside of.
        hints: What helps an engine that `TakesHints` with its cache, by name; `None` for none.
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
    hints: dict[str, Any] | None = None
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
        prompt_tokens: As the engine counts them; 0 for as many as `prompt_token_ids`.
        output_tokens: As the engine counts them; 0 for as many as the choices have ids. It is not
            remembered: where there are no ids, a memo hit counts none as saved.
    """

    choices: tuple[Choice, ...]
    cached_tokens: int = 0
    first_token_s: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an engine can hold.

    Args:
        kv_tokens: Tokens of KV cache in all.
        block_tokens: Tokens per KV block.
        max_model_tokens: Most tokens of one prompt and its answer together.
        max_requests: Requests computed in one step.
        max_batched_tokens: Tokens computed in one step.
    """

    kv_tokens: int
    block_tokens: int
    max_model_tokens: int
    max_requests: int
    max_batched_tokens: int = 2048


class Engine(Protocol):
    """Computes answers: what every engine must have. `VLLM` and `ScriptedEngine` have all of it.

    One engine may serve several sessions, at once or one after another, in one event loop.
    """

    @property
    def name(self) -> str:
        """What a person calls the model."""
        ...

    def identity(self) -> str:
        """Digest of everything that decides an answer; works before the engine is started.

        Weights, tokenizer and chat template, dtype, quantisation, adapter, engine version; of a
        hosted model its name and version.
        """
        ...

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        """Compute the request; cancelling this aborts it, where the engine can.

        Args:
            request: What to compute.
            on_delta: Called with each piece of text as it comes; `None`: nobody listens. An engine
                that cannot stream never calls it: readers then get all of the text at the end.

        Raises:
            RequestError: This request is at fault.
            TransientEngineError: It may work when tried again.
            EngineDied: The engine is gone, and with it every open request; `start` revives it.
        """
        ...


# --- abilities that an engine may have -----------------------------------------------------------

AbilityT = TypeVar("AbilityT")


def able(engine: Any, ability: type[AbilityT]) -> AbilityT | None:
    """The engine as one that has an ability; `None` where it lacks any of its attributes.

    `isinstance` does not do: from Python 3.12 on it sees nothing of what `__getattr__` passes on.
    """
    names = [name for name in vars(ability) if not name.startswith("_")]
    return cast(AbilityT, engine) if all(hasattr(engine, name) for name in names) else None


class Starts(Protocol):
    """An engine that is started and closed; without it one is always ready.

    Sessions start it at the first request that the memo cannot answer, and never close one they
    were given already started.
    """

    @property
    def is_started(self) -> bool:
        """Whether `start` has finished and `close` was not called since.

        An engine that died counts as started all the same: to start it again is the business of
        whoever finds it dead, to close it that of whoever started it first.
        """
        ...

    async def start(self) -> None:
        """Load the model. Idempotent; concurrent calls wait for the same start.

        An engine that died is started anew.

        Raises:
            EngineStartError: The model does not load; the message says why and what to do.
        """
        ...

    async def close(self) -> None:
        """Stop the engine and everything it started. Idempotent."""
        ...


class Renders(Protocol):
    """An engine that tells a prompt's token ids.

    Without it no request is sent where its prefix is cached (replicas get equal shares), and a
    prompt's length is known only from `Completion.prompt_tokens`: a token budget reserves the
    answers alone, and may be exceeded by the prompts that are under way.
    """

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        """Token ids of the conversation in the model's own template, ready for the answer."""
        ...


class Truncates(Protocol):
    """An engine whose answers can be cut, by their token ids.

    Without it an answer serves only calls with the same `max_tokens`.
    """

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The greedy answer cut to `max_tokens`, exactly as if it had been asked for so.

        Works without a started engine. `None` where that cannot be done exactly.
        """
        ...


class HasCapacity(Protocol):
    """An engine that says what it holds; without it every request is sent as soon as it is ready.

    Then nothing waits for its turn but by `max_open`.
    """

    @property
    def capacity(self) -> Capacity | None:
        """What the engine can hold; `None` before `start`, or where there is no limit."""
        ...


class FollowsSchemas(Protocol):
    """An engine that constrains its answers to `Request.json_schema`.

    Without it `llm(..., schema=...)` raises `RequestError`.
    """

    @property
    def follows_schemas(self) -> bool:
        """Whether it does."""
        ...


class TakesHints(Protocol):
    """An engine that takes `Request.hints`, as `engines.hinted_scheduler` describes them.

    Without it the cache of sessions that have ended stays as long as that of those which go on.
    """

    @property
    def takes_hints(self) -> bool:
        """Whether it does."""
        ...


class HasCost(Protocol):
    """An engine that says what a step of it takes.

    Without it schedules are not compared, and rows are all open.
    """

    @property
    def cost(self) -> StepCost | None:
        """What a step takes; `None` before that is known."""
        ...


@runtime_checkable
class PartedIdentity(Protocol):
    """An engine that can say what its identity is made of.

    Without it a person who wonders why a memo does not answer learns only that the model differs.
    """

    def identity_parts(self) -> dict[str, str]:
        """What `Engine.identity` digests, by name: the weights, the tokenizer, the dtype, ..."""
        ...
