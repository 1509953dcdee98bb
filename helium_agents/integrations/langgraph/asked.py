"""One question of LangChain's, asked as a call of ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from helium_agents.authoring.llm import llm
from helium_agents.errors import InvalidReply
from helium_agents.graph.ref import Ref
from helium_agents.graph.reply import Reply
from helium_agents.graph.trace import Frame, entered
from helium_agents.integrations.langgraph.messages import streamed_args, to_ours, to_theirs
from helium_agents.integrations.langgraph.nodes import asked_in_node
from helium_agents.integrations.langgraph.usage import Told
from helium_agents.integrations.langgraph.work import Put

_UNFIT = "invalid_reply"


def check_fits(message: AIMessage) -> AIMessage:
    """The message, if the reply fits the schema that was asked for.

    Raises:
        InvalidReply: It does not.
    """
    if _UNFIT in message.response_metadata:
        raise InvalidReply(message.response_metadata[_UNFIT], str(message.text))
    return message


@dataclass(frozen=True)
class Asked:
    """A question, to be asked on the event loop of a session.

    Args:
        messages: The conversation.
        options: What else `llm` takes.
        name: What a person calls the model.
        metadata: LangChain's, which names the node of a graph.
        keeps_invalid: Whether a reply that does not fit its schema is given, and not raised:
            `check_fits` raises it.
    """

    messages: Sequence[BaseMessage]
    options: Mapping[str, Any]
    name: str
    metadata: Mapping[str, Any]
    keeps_invalid: bool = False

    async def answer(self) -> ChatResult:
        """The answer, once it is there."""
        with asked_in_node(self.metadata) as frame:
            ref, told = self._ask(frame)
            try:
                with entered(frame):
                    reply = await ref
            except InvalidReply as error:
                message = AIMessage(error.text, **self._unfit(error, told))
                return ChatResult(generations=[ChatGeneration(message=message)])
        message = AIMessage(
            **to_theirs(reply),
            usage_metadata=told.usage(),
            response_metadata=told.metadata(reply),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def chunks(self) -> AsyncGenerator[ChatGenerationChunk, None]:
        """The answer as it comes; the last chunk has what is known at the end."""
        with asked_in_node(self.metadata) as frame:
            ref, told = self._ask(frame)
            texts = ref.stream()
            try:
                while True:
                    with entered(frame):  # not while the consumer runs, whose context is this one
                        text = await anext(texts, None)
                    if text is None:
                        break
                    yield ChatGenerationChunk(message=AIMessageChunk(content=text))
                reply = await ref
            except InvalidReply as error:
                last = AIMessageChunk("", **self._unfit(error, told), chunk_position="last")
                yield ChatGenerationChunk(message=last)
                return
        said = to_theirs(reply)
        calls = [
            tool_call_chunk(name=call.name, args=streamed_args(call), id=call.id, index=at)
            for at, call in enumerate(reply.tool_calls)
        ]
        last = AIMessageChunk(
            content="",
            additional_kwargs=said["additional_kwargs"],
            tool_call_chunks=calls,
            usage_metadata=told.usage(),
            response_metadata=told.metadata(reply),
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=last)

    async def pour(self, put: Put) -> None:
        """Put the chunks, for a caller elsewhere."""
        async for chunk in self.chunks():
            put(chunk)

    def _unfit(self, error: InvalidReply, told: Told) -> dict[str, Any]:
        """What a message says besides a reply that does not fit; raises where it is not wanted."""
        if not self.keeps_invalid:
            raise error
        metadata = {"model_name": self.name, _UNFIT: str(error)}
        return {"usage_metadata": told.usage(), "response_metadata": metadata}

    def _ask(self, frame: Frame) -> tuple[Ref[Reply[Any]], Told]:
        with entered(frame):
            ref: Ref[Reply[Any]] = llm(*to_ours(self.messages), **self.options)
        return ref, Told(ref, self.name)
