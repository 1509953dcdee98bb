"""`run(...)`: one call from a synchronous program."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from helium_agents.engines.engine import Engine
from helium_agents.errors import SessionError
from helium_agents.runtime.session import Session

T = TypeVar("T")


def run(
    fn: Callable[..., Awaitable[T]],
    /,
    *args: Any,
    engine: Engine | Mapping[str, Engine] | None = None,
    **options: Any,
) -> T:
    """Call an operator (or any async function) in a session of its own and return its value.

    Args:
        fn: What to call. Pass the function, not a call of it: a call needs a running loop.
        args: Its arguments.
        engine: As of `Session`.
        options: Further options of `Session`: `memo=`, `token_budget=`, ...

    Raises:
        SessionError: An event loop runs already; `await` the call there instead.

    Example:
        ``run(answer, row, memo="memo")``
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_call(fn, args, Session(engine, **options)))
    raise SessionError("run(...) is for synchronous programs; in async code await the call itself")


async def _call(fn: Callable[..., Awaitable[T]], args: tuple[Any, ...], session: Session) -> T:
    async with session:
        return await fn(*args)
