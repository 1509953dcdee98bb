"""What a scripted engine answers with: text, calls of tools, reasoning; and what becomes of it.

A token is a word with the white space before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from xxhash import xxh32_intdigest

from helium_agents.engines.engine import ChatMessage, Choice, Request, ToolCall, WrittenCall
from helium_agents.graph.image import pieces

TOKEN = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """An answer that is not only text.

    Args:
        text: What is said.
        tool_calls: The calls of tools that are asked for; their ids count for nothing.
        reasoning: What was thought first.
    """

    text: str = ""
    tool_calls: Sequence[ToolCall] = ()
    reasoning: str | None = None


Answer = str | ScriptedReply


def beside(message: ChatMessage) -> str:
    """What a message has beside its text, as text; empty where it has nothing."""
    calls = [f"{call.id} {call.name} {call.text}" for call in message.tool_calls]
    seen = [image.digest for image in message.images]
    return " ".join(filter(None, [message.reasoning, *calls, message.tool_call_id, *seen]))


def question_of(request: Request) -> str:
    """The text of the last message, without its images."""
    last = request.messages[-1]
    texts = [piece for piece in pieces(last.content, last.images) if isinstance(piece, str)]
    return "".join(texts)


def choice_of(answer: Answer, request: Request) -> Choice:
    """The answer, as long as it may be; calls are there as a whole or not at all."""
    if isinstance(answer, str):
        return cut(answer, request)
    calls = tuple(WrittenCall(call.name, call.text) for call in answer.tool_calls)
    before = TOKEN.findall(answer.reasoning or "")
    after = TOKEN.findall(" ".join(f"{call.name} {call.arguments}" for call in calls))
    spoken = cut(answer.text, request)
    tokens = (*token_ids(before), *spoken.token_ids, *token_ids(after))
    if len(tokens) > request.max_tokens:
        return Choice(spoken.text, tokens[: request.max_tokens], "length", answer.reasoning)
    return Choice(spoken.text, tokens, spoken.finish_reason, answer.reasoning, calls)


def cut(text: str, request: Request) -> Choice:
    """The text up to the first stop string, at most `max_tokens` long."""
    for stop in request.sampling.stop:
        text = text.partition(stop)[0]
    tokens = TOKEN.findall(text)
    if len(tokens) <= request.sampling.max_tokens:
        return Choice(text, tuple(token_ids(tokens)), "stop")
    return first_of(tokens, request.sampling.max_tokens)


def first_of(tokens: list[str], max_tokens: int) -> Choice:
    """The first tokens of an answer that was cut."""
    short = tokens[:max_tokens]
    return Choice("".join(short), tuple(token_ids(short)), "length")


def token_ids(tokens: list[str]) -> list[int]:
    """A number for each word."""
    return [xxh32_intdigest(token.encode("utf-8", "replace")) for token in tokens]
