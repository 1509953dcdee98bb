"""The engine port: what the runtime asks of whatever computes answers.

An engine knows nothing of plans, keys or memos. What every engine must have is in `Engine`: a name,
an identity, and `complete`, which takes messages and gives text. What else one may be able to do is
in `WholeEngine`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from helium_agents.graph.image import Image as Image
from helium_agents.graph.reply import Choice as Choice
from helium_agents.graph.reply import FinishReason as FinishReason
from helium_agents.graph.sampling import Sampling as Sampling
from helium_agents.graph.tool_call import ToolCall as ToolCall
from helium_agents.graph.tool_call import WrittenCall as WrittenCall


class ChatMessage(NamedTuple):
    """One message of a rendered conversation.

    Args:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: What is said.
        tool_calls: The calls that the model asked for, of an assistant's message.
        reasoning: What the model thought before it said it, where that is known.
        tool_call_id: The call whose result it is, of a tool's message.
        tool_name: The tool whose result it is.
        images: What stands at the marks in `content`; `graph.image.pieces` puts them together.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of streamed text of choice number `index`."""

    index: int
    text: str


OnDelta = Callable[[Delta], None]
"""Called with each piece of text as it comes."""


def a_request() -> str:
    """What a request without a call is called."""
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
        prompt_token_ids: The conversation as the engine's `render` gave it; empty if it has none,
            and of a conversation with images, whose tokens are known to the engine alone.
        sampling: How to sample; `sampling.n` answers are wanted.
        json_schema: JSON schema text that the answer must satisfy, or `None`.
        priority: Lower runs first; set by the schedule.
        model: The engine's name in the session, or `None` for the default.
        item: The item of a top-level `map` that it is wanted for, by how many were read before it
            in the session; `None` outside of any.
        depth: How many calls its call is inside of.
        call: What a planner knows its call by.
        hints: What helps an engine that `takes_hints` with its cache, by name; `None` for none.
        describe: Gives what a person calls its call, for errors.
        on_attempt: Called when an engine is about to compute it, and again after a death; gives
            who is to hear the text, if anybody.
        tools: What the model may call, as OpenAI's interface has it: dicts with `type` and
            `function`, which has `name`, `parameters` and perhaps `description`.
        tool_choice: ``"auto"``, ``"none"``, ``"required"``, or the name of the one to call.
        on_moved: Called when it is wanted for another item, and `item` says which.
        is_guess: Whether nobody has asked for it yet: it is in nobody's way, and the first to go.
        headers: What an engine behind HTTP sends along, by name: its caller's trace;
            `None` for nothing.
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
    call: Hashable = None
    hints: dict[str, Any] | None = None
    describe: Callable[[], str] = a_request
    on_attempt: Callable[[], OnDelta | None] = nobody
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str = "auto"
    on_moved: Callable[[], None] = nobody
    is_guess: bool = False
    headers: Mapping[str, str] | None = None

    @property
    def max_tokens(self) -> int:
        """Most tokens of one answer."""
        return self.sampling.max_tokens

    @property
    def has_images(self) -> bool:
        """Whether a message has images."""
        return any(message.images for message in self.messages)


class Completion(NamedTuple):
    """What an engine returns for a request.

    Args:
        choices: As many as `sampling.n`.
        cached_tokens: Prompt tokens that the engine had in its prefix cache.
        first_token_s: When the first token came, by the event loop's clock, where it is known.
        prompt_tokens: As the engine counts them; 0 for as many as `prompt_token_ids`.
        output_tokens: As the engine counts them; 0 for as many as the choices have ids. It is not
            remembered: where there are no ids, a memo hit counts none as saved.
        begun_s: When the engine began to read the prompt, by the event loop's clock, where it says.
        read_s: When it had read it and had its first token, likewise, whether or not somebody heard
            of it.
    """

    choices: tuple[Choice, ...]
    cached_tokens: int = 0
    first_token_s: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    begun_s: float | None = None
    read_s: float | None = None


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
    max_model_tokens: int = 32_768
    max_requests: int = 64
    max_batched_tokens: int = 2048


AnswersLast = Literal["for good", "a session", "not at all"]
"""How long answers may be remembered."""


def shortest(answers_last: Iterable[AnswersLast]) -> AnswersLast:
    """How long an answer may be remembered in which several engines have a share."""
    return min(answers_last, key=("not at all", "a session", "for good").index, default="for good")


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
