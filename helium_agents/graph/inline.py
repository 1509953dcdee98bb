"""Running an operator in the task of its first awaiter.

A plain operator is a plain coroutine to its caller: it shares the caller's task, so its
ContextVar writes are seen, its `finally` runs before the caller goes on, and a call costs little.
Later awaiters wait for the first one's outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from sys import exception
from typing import Any, TypeVar

from helium_agents.errors import CallTimeout, ImpureCall, RefCancelled
from helium_agents.graph.body import Body
from helium_agents.graph.concurrently import values_of
from helium_agents.graph.cycles import check_cycle
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Failure, Outcome, Value
from helium_agents.graph.trace import Frame, Tally, enter, entered, entered_frame, leave
from helium_agents.graph.waits import InlineWait

T = TypeVar("T")

ValueOf = Callable[[Node], Coroutine[Any, Any, Any]]
"""Gives the value of a call when it is awaited."""


def awaitable(fn: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> Awaitable[T]:
    """What a function that should be async returns.

    Raises:
        TypeError: It is no function, or returns something that cannot be awaited.
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    if not callable(fn):
        raise TypeError(f"{name} is not a function: give an operator, or any async function")
    made = fn(*args, **kwargs)
    if not isinstance(made, Awaitable):
        raise TypeError(
            f"{name}(...) returned a value of type {type(made).__name__}, which cannot be awaited: "
            f"make it an `async def` function"
        )
    return made


def check_may_await(node: Node, frame: Frame | None) -> None:
    """Refuse to let a pure operator depend on a call that was made outside it and is not pure.

    Raises:
        ImpureCall: The frame is pure; the call is an unseeded draw, or of a plain operator.
    """
    if frame is None or not frame.is_pure:
        return
    if node.frame.runner is not frame.runner and node.outcome is None and frame.runner is not None:
        frame.runner.on_effect()
    if not node.is_drawn and node.is_planned:
        return
    if node.frame.is_pure and not node.is_drawn:
        return  # made in here, where it was refused or need not be
    what = "depends on an unseeded sample" if node.is_drawn else "is not pure"
    caller = "a pure operator" if frame.node is None else f"the pure operator {frame.node.label}"
    raise ImpureCall(
        f"the Ref of {node.label}(...) {what}, but was awaited inside {caller}, whose result may "
        "be shared: pass its value as an argument, or drop pure=True there"
    )


async def run_inline(node: OperatorNode, value_of: ValueOf) -> Any:
    """The value of an operator call, run here and now unless it already runs elsewhere."""
    awaiter = entered_frame()
    check_may_await(node, awaiter)
    if node.outcome is not None:  # it has come since the coroutine was made
        return node.outcome.get()
    above = node.frame
    if node.is_running:
        return await _wait_for_other(node, awaiter)
    runner = above.runner
    if runner is not None:
        runner.on_awaited(node)
    node.is_running = True
    node.awaiter, node.task = awaiter, asyncio.current_task()
    handled = exception()
    item = above.item if awaiter is None or awaiter.item is None else awaiter.item
    try:
        value = await run_body(node, item, value_of=value_of)
    except asyncio.CancelledError:
        message = f"{node.label}(...) was cancelled in the task that was running it"
        _settle(node, Failure(RefCancelled(message)))
        raise
    except BaseException as error:
        _settle(node, Failure(error, handled))
        raise
    node.settle(Value(value))
    if runner is not None:
        runner.on_ended(node)
    if node.waiters is not None:
        _wake_waiters(node)
    return value


def _settle(node: OperatorNode, outcome: Outcome) -> None:
    node.settle(outcome)
    if node.frame.runner is not None:
        node.frame.runner.on_ended(node)
    _wake_waiters(node)


def _wake_waiters(node: OperatorNode) -> None:
    waiters, node.waiters = node.waiters, None
    for waiter in waiters or ():
        waiter.wake()


async def _wait_for_other(node: OperatorNode, awaiter: Frame | None) -> Any:
    wait = InlineWait(node, awaiter)
    check_cycle(wait, node)
    if node.waiters is None:
        node.waiters = {}
    node.waiters[wait] = None
    try:
        await wait.woken
    finally:
        if node.waiters is not None:
            del node.waiters[wait]
    assert node.outcome is not None
    return node.outcome.get()


async def run_body(
    node: OperatorNode,
    item: Any,
    tally: Tally | None = None,
    on_begin: Callable[[], None] | None = None,
    value_of: ValueOf | None = None,
) -> Any:
    """Run the operator's function in a frame of its own, resolving inputs, with its retries.

    Args:
        node: The call.
        item: The item of a `map` that the body works for.
        tally: Counts the model calls made for a pure operator.
        on_begin: Called when the body begins; who gives it keeps the timeout itself.
        value_of: Gives the values of its inputs, where it has any.
    """
    if node.inputs:
        assert value_of is not None
        above = node.frame
        with entered(Frame(above.runner, above, ("inputs",), item=item, node=node)):
            node = node.with_values(tuple(await values_of(map(value_of, node.inputs))))
    body = node.body
    if on_begin is not None:
        on_begin()
    elif body.timeout_s is not None:
        return await _within(body, run_body(node, item, tally, _begun))
    for attempt in range(body.retries + 1):
        frame = node.body_frame(attempt, item, tally)
        token = enter(frame)
        try:
            return await body.fn(*node.args, **node.kwargs)
        except BaseException as error:
            frame.has_failed = True
            is_tried_again = attempt < body.retries and isinstance(error, body.retry_on)
            if not is_tried_again or isinstance(error, asyncio.CancelledError):
                raise
        finally:
            leave(token)
    raise AssertionError("unreachable")


def _begun() -> None:
    """The time is kept already."""


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
