"""`gather`: several calls at once, with a failure rule that does not depend on timing."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Iterator
from inspect import isawaitable
from typing import Any, Literal, TypeVar, overload

from helium_agents.errors import RefMisuse, shown
from helium_agents.graph.arguments import wrong_flag
from helium_agents.graph.concurrently import outcomes_of, values_of
from helium_agents.graph.outcome import Failure

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


@overload
async def gather(
    first: Awaitable[A], second: Awaitable[B], /, *, return_exceptions: Literal[False] = ...
) -> tuple[A, B]: ...
@overload
async def gather(
    first: Awaitable[A],
    second: Awaitable[B],
    third: Awaitable[C],
    /,
    *,
    return_exceptions: Literal[False] = ...,
) -> tuple[A, B, C]: ...
@overload
async def gather(
    *awaitables: Awaitable[A], return_exceptions: Literal[False] = ...
) -> tuple[A, ...]: ...
@overload
async def gather(
    *awaitables: Awaitable[A], return_exceptions: Literal[True]
) -> tuple[A | BaseException, ...]: ...
async def gather(*awaitables: Awaitable[Any], return_exceptions: bool = False) -> tuple[Any, ...]:
    """Await all, concurrently; the results come in the order of the arguments.

    The failure rule: if any fails, the error raised is that of the first failing one in the order
    of the arguments, whichever failed first on the clock, so that a run fails the same way every
    time. As soon as it is certain, the others are cancelled and their clean-up awaited: nothing
    is left running. (`asyncio.gather` raises what failed first and leaves the rest running.)

    Args:
        awaitables: Refs, coroutines, futures.
        return_exceptions: Give exceptions as results instead, and cancel nothing.

    Raises:
        RefMisuse: An argument cannot be awaited, such as a list of Refs; then nothing runs.
    """
    wrong = _wrong_argument(awaitables) or wrong_flag("return_exceptions", return_exceptions)
    if wrong is not None:
        for awaitable in awaitables:  # nobody will await them
            if isinstance(awaitable, Coroutine):
                awaitable.close()
        raise RefMisuse(f"gather(...): {wrong}")
    if return_exceptions:
        outcomes = await outcomes_of(awaitables, stop_at_failure=False)
        return tuple(o.error if isinstance(o, Failure) else o.value for o in outcomes)
    return tuple(await values_of(awaitables))


def _wrong_argument(arguments: tuple[Any, ...]) -> str | None:
    for position, argument in enumerate(arguments):
        if isawaitable(argument):
            continue
        is_several = isinstance(argument, list | tuple | set | frozenset | Iterator)
        fix = "give each by itself, as in gather(*refs)" if is_several else "give a Ref or the like"
        kind = type(argument).__name__
        return f"argument {position}, {shown(argument)} ({kind}), cannot be awaited: {fix}"
    return None
