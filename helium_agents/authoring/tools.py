"""Carrying out the calls of tools that a model asks for, once or until it has its answer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from inspect import isawaitable
from typing import Any, Literal

from pydantic_core import to_json

from helium_agents.authoring.gather import gather
from helium_agents.authoring.llm import llm
from helium_agents.authoring.messages import Message, assistant, tool
from helium_agents.authoring.operator import BoundOperator, Operator
from helium_agents.authoring.tool_schema import ToolLike, as_tool
from helium_agents.errors import HeliumError, InvalidReply, RequestError, SessionError, in_words
from helium_agents.graph.arguments import complaint, is_whole
from helium_agents.graph.ref import Ref
from helium_agents.graph.reply import Reply
from helium_agents.graph.tool_call import ToolCall
from helium_agents.graph.trace import entered_frame, root_frame

OnError = Literal["message", "raise"]

_MOST_TURNS = 2**31


async def run_tools(
    reply: Reply[Any], tools: Sequence[ToolLike], *, on_error: OnError = "message"
) -> list[Message]:
    """Carry out a reply's calls, all at once; the messages to go on with, the reply first.

    Calls of `@operator(pure=True)` are shared and remembered; other functions run once for each
    call, those that are not async in the event loop.

    Args:
        reply: What the model said.
        tools: The functions that it was told of.
        on_error: What becomes of a tool that fails, and of a call that cannot be carried out:
            ``"message"`` tells the model, ``"raise"`` raises it here.

    Raises:
        HeliumError: A call that a tool makes itself fails, with either `on_error`: no model can
            mend an engine, a token budget or the program.
        InvalidReply: A call cannot be carried out, with ``on_error="raise"``.
        RequestError: A tool that is called is only a schema.
    """
    if on_error not in ("message", "raise"):
        raise RequestError(f'on_error={on_error!r}: write "message" or "raise"')
    functions = {each.name: each.function for each in map(as_tool, tools)}
    results = await gather(*[_result(call, functions, on_error) for call in reply.tool_calls])
    answers = [tool(*pair) for pair in zip(results, reply.tool_calls, strict=True)]
    return [assistant(reply), *answers]


async def _result(call: ToolCall, functions: dict[str, Any], on_error: OnError) -> str:
    function = functions.get(call.name)
    if call.error is not None:
        if on_error == "raise":
            raise InvalidReply(call.error)
        return f"Error: {call.error}"
    if function is None:
        raise RequestError(f"{call.name} is only a schema: answer its calls with tool(...)")
    try:
        with _told_as_running(call, function):
            value = function(**call.arguments)
            if isinstance(value, Ref) or isawaitable(value):
                value = await value
        return value if isinstance(value, str) else to_json(value).decode()
    except HeliumError:
        raise
    except Exception as error:
        if on_error == "raise":
            raise
        return f"Error: {in_words(error)}"


def _told_as_running(call: ToolCall, function: Any) -> AbstractContextManager[None]:
    """Has the session name the tool among what is waited for, and tell its observers of it."""
    frame = entered_frame()
    if frame is None:
        with suppress(SessionError):  # several are open: none of them is known to be meant
            frame = root_frame()
    if frame is None or frame.runner is None:
        return nullcontext()
    is_operator = isinstance(function, Operator | BoundOperator)
    return frame.runner.running_tool(frame, call, is_operator=is_operator)


async def agent_loop(
    *messages: Message,
    tools: Sequence[ToolLike],
    max_turns: int = 10,
    on_error: OnError = "message",
    **options: Any,
) -> Reply[None]:
    """Ask, carry out the calls of tools, and ask again until the model calls none (ReAct).

    Args:
        messages: The conversation so far.
        tools: What the model may call.
        max_turns: Most calls of the model; the last may call no tools.
        on_error: As for `run_tools`.
        options: More arguments of `llm`.

    Raises:
        RequestError: `max_turns` is no whole number, or below 1.
    """
    if not is_whole(max_turns, 1, _MOST_TURNS):
        raise RequestError(complaint("max_turns", max_turns, "a whole number, at least 1"))
    history = list(messages)
    for _ in range(max_turns - 1):
        reply: Reply[None] = await llm(*history, tools=tools, **options)
        if not reply.tool_calls:
            return reply
        history += await run_tools(reply, tools, on_error=on_error)
    return await llm(*history, tools=tools, **(options | {"tool_choice": "none"}))
