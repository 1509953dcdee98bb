"""Checks the function and the options of an operator, and says in words what is wrong."""

from __future__ import annotations

import functools
import inspect
from types import FunctionType, MethodType
from typing import Any

from helium_agents.errors import OperatorDefinitionError, shown
from helium_agents.graph.arguments import (
    wrong_flag,
    wrong_name,
    wrong_retries,
    wrong_timeout,
)


def check_operator(
    fn: Any,
    is_operator: bool,
    *,
    pure: Any,
    version: Any,
    name: Any,
    retries: Any,
    retry_on: Any,
    timeout: Any,
    predict: Any,
) -> None:
    """Check what `operator` is given.

    Raises:
        OperatorDefinitionError: The function is none, or an option is of the wrong type or out of
            range.
    """
    wrong = (
        _wrong_function(fn, is_operator, is_pure=pure)
        or wrong_flag("pure", pure)
        or wrong_name("version", version)
        or wrong_name("name", name)
        or wrong_retries(retries)
        or _wrong_classes(retry_on)
        or wrong_timeout(timeout)
        or _wrong_predict(predict, is_pure=pure)
    )
    if wrong is not None:
        what = getattr(fn, "__qualname__", None) or shown(fn)
        raise OperatorDefinitionError(f"@operator on {what}: {wrong}")


def _wrong_function(fn: Any, is_operator: bool, *, is_pure: bool) -> str | None:
    if isinstance(fn, staticmethod | classmethod):
        return f"put @operator under @{type(fn).__name__}, next to the function"
    if is_operator:
        return "it is already an operator; decorate the function once, with all options"
    if isinstance(fn, functools.partial):
        return (
            "it is a partial, whose arguments would be in no key: make the function an operator, "
            "and the partial of that, as in partial(operator(fn), ...)"
        )
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        return (
            "a generator cannot be an operator, since a call has one result. Return a list, or "
            "stream a single call with llm(...).stream()"
        )
    if not isinstance(fn, FunctionType | MethodType) or not inspect.iscoroutinefunction(fn):
        reason = "an operator must be an `async def` function"
        if inspect.iscoroutinefunction(getattr(fn, "__call__", None)):  # noqa: B004
            reason += "; put @operator on the __call__ method of its class"
        return reason
    if is_pure and isinstance(fn, MethodType):
        return (
            "it is a bound method, whose object would be in no key: put @operator on the method "
            "in its class"
        )
    return None


def _wrong_classes(retry_on: Any) -> str | None:
    classes = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        return None
    return f"retry_on={shown(retry_on)} must be a class of exceptions, or a tuple of such classes"


def _wrong_predict(predict: Any, *, is_pure: bool) -> str | None:
    if predict is None:
        return None
    if not callable(predict) or inspect.iscoroutinefunction(predict):
        return f"predict={shown(predict)} must be a function that is not async"
    return None if is_pure else "predict= is for pure operators, which may be run early: pure=True"
