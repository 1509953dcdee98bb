"""Running an operator in the task of its first awaiter.

A plain operator is a plain coroutine to its caller: it shares the caller's task, so its
ContextVar writes are seen, its `finally` runs before the caller goes on, and a call costs little.
Later awaiters wait for the first one's outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from helium_agents.errors import (
    CallTimeout,
    InvalidReply,
    RefCancelled,
    RefMisuse,
    SessionError,
    TransientEngineError,
)
from helium_agents.graph.concurrently import values_of
from helium_agents.graph.node import Body, Failure, Node, OperatorNode, Outcome, Value
from helium_agents.graph.trace import Frame, current_frame, enter, entered, leave

T = TypeVar("T")

RETRYABLE = (TransientEngineError, InvalidReply)
"""What `retries=` of an operator covers; any other exception is the program's own."""


async def value_of(node: Node) -> Any:
    """The value of a call: known, run inline, or waited for in its session."""
    if node.outcome is not None:
        return node.outcome.get()
    runner = node.frame.runner
    if isinstance(node, OperatorNode) and (runner is None or not node.is_planned):
        return await run_inline(node)
    if runner is None:
        raise SessionError(
            "llm(...) needs a session to run in: put `async with Session(...)` around the call, "
            "or start the program with helium_agents.run(...)"
        )
    if isinstance(node, OperatorNode):
        _check_not_inside_itself(node)
    return await runner.wait(node)


async def run_inline(node: OperatorNode) -> Any:
    """The value of an operator call, run here and now unless it already runs elsewhere."""
    if node.is_running:
        return await _wait_for_other(node)
    runner = node.frame.runner
    if runner is not None:
        runner.on_awaited(node)
    node.is_running = True
    try:
        if node.inputs or not node.body.is_bare:
            value = await run_body(node, node.frame.item)
        else:  # the common case: `run_body` and `entered`, spelled out for their cost
            above, body = node.frame, node.body
            level = (body.identity, node.call_key, node.ordinal, 0)
            frame = Frame(runner, above, level, body.is_pure or above.is_pure, above.item, node)
            token = enter(frame)
            try:
                value = await body.fn(*node.args, **node.kwargs)
            except BaseException:
                frame.has_failed = True
                raise
            finally:
                leave(token)
    except asyncio.CancelledError:
        message = f"{node.label}(...) was cancelled in the task that was running it"
        _settle(node, Failure(RefCancelled(message), None))
        raise
    except BaseException as error:
        _settle(node, Failure(error, error.__traceback__))
        raise
    node.settle(Value(value))
    if node.waiters is not None:
        _wake_waiters(node)
    return value


def _settle(node: OperatorNode, outcome: Outcome) -> None:
    node.settle(outcome)
    _wake_waiters(node)


def _wake_waiters(node: OperatorNode) -> None:
    waiters, node.waiters = node.waiters, None
    for waiter in waiters or ():
        if not waiter.done():
            waiter.set_result(None)


async def _wait_for_other(node: OperatorNode) -> Any:
    if node in current_frame().callers():
        raise RefMisuse(f"{node.label}(...) awaits its own result, which would never come")
    waiter = asyncio.get_running_loop().create_future()
    if node.waiters is None:
        node.waiters = []
    node.waiters.append(waiter)
    await waiter
    assert node.outcome is not None
    return node.outcome.get()


def _check_not_inside_itself(node: OperatorNode) -> None:
    key = node.key
    if key is not None and any(caller.key == key for caller in current_frame().callers()):
        raise RefMisuse(
            f"{node.label}(...) awaits a call of itself with the same arguments, which would "
            f"never come"
        )


async def run_body(
    node: OperatorNode, item: Any, on_attempt: Callable[[], None] | None = None
) -> Any:
    """Run the operator's function in a frame of its own, resolving inputs, with its retries.

    Args:
        node: The call.
        item: The item of a `map` that the body works for.
        on_attempt: Called when an attempt begins; who gives it keeps the timeout itself.
    """
    if node.inputs:
        node = node.with_values(tuple(await values_of(map(value_of, node.inputs))))
    body = node.body
    for attempt in range(body.retries + 1):
        with entered(node.body_frame(attempt, item)):
            if on_attempt is not None:
                on_attempt()
            try:
                if body.timeout_s is None or on_attempt is not None:
                    return await body.fn(*node.args, **node.kwargs)
                return await _within(body, body.fn(*node.args, **node.kwargs))
            except RETRYABLE:
                if attempt == body.retries:
                    raise
    raise AssertionError("unreachable")


async def _within(body: Body, call: Awaitable[T]) -> T:
    """Await `call` for at most the operator's timeout."""
    try:
        async with asyncio.timeout(body.timeout_s) as scope:
            return await call
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise CallTimeout(
            f"{body.name}(...) did not finish within its timeout of {body.timeout_s} s"
        ) from error
