"""Checks what `llm` is given beside texts and sampling, and says in words what is wrong."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import Any

from helium_agents.authoring.tool_schema import tool_set
from helium_agents.errors import RequestError, shown
from helium_agents.graph.arguments import (
    wrong_flag,
    wrong_name,
    wrong_retries,
    wrong_timeout,
)
from helium_agents.graph.tools import ToolSet
from helium_agents.graph.trace import Frame


def not_a_message(message: Any, position: int) -> str:
    """What to say of an argument that is no message."""
    kind = type(message).__name__
    if isinstance(message, list | tuple):
        return (
            f"message {position} of llm(...) is a {kind}: give each message by itself, as in "
            f"llm(*messages)"
        )
    if isinstance(message, dict):
        return (
            f"message {position} of llm(...) is a dict: write user('...'), system('...') or "
            f"assistant('...') in place of {{'role': ..., 'content': ...}}"
        )
    return (
        f"message {position} of llm(...) is a {kind}: wrap it in system(...), user(...) or "
        f"assistant(...)"
    )


def tools_of(tools: Any, choice: Any, schema: Any, n: int) -> ToolSet:
    """The tools of a call.

    Raises:
        RequestError: They do not go with the rest of it.
    """
    if tools is None:
        raise RequestError(f"tool_choice={choice!r} without tools=: name the tools to choose from")
    if schema is not None:
        raise RequestError("schema= does not go with tools=: ask for the form in another call")
    if n != 1:
        raise RequestError(f"n={n} does not go with tools=: make the call {n} times instead")
    return tool_set(tools, choice)


def check_predict(predict: Any, frame: Frame, n: int) -> None:
    """Raise `RequestError` unless `predict` can guess the answer."""
    if n != 1:
        raise RequestError(f"n={n} does not go with predict=, which guesses one answer")
    if isinstance(predict, str) and frame.runner is not None:
        frame.runner.models[predict]
    elif not (isinstance(predict, str) or callable(predict)) or iscoroutinefunction(predict):
        raise RequestError(
            f"predict={shown(predict)} must be a function that is not async, or the name of an "
            "engine of the session"
        )


def check_options(model: Any, share: Any, retries: Any, timeout: Any) -> None:
    """Raise `RequestError` for an option of the wrong type or out of range."""
    wrong = (
        wrong_name("model", model)
        or wrong_flag("share", share)
        or wrong_retries(retries)
        or wrong_timeout(timeout)
    )
    if wrong is not None:
        raise RequestError(wrong)
