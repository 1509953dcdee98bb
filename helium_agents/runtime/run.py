"""`run(...)`: one call from a synchronous program."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, Unpack

from helium_agents.engines.default import EngineLike
from helium_agents.errors import SessionError
from helium_agents.runtime.options import SessionOptions
from helium_agents.runtime.session import Session
from helium_agents.telemetry.events import Observer

T = TypeVar("T")


def run(
    fn: Callable[..., Awaitable[T]],
    /,
    *args: Any,
    engine: EngineLike | Mapping[str, EngineLike] | None = None,
    observers: Sequence[Observer] = (),
    **options: Unpack[SessionOptions],
) -> T:
    """Call an operator (or any async function) in a session of its own and return its value.

    Args:
        fn: What to call. Pass the function, not a call of it: a call needs a running loop.
        args: Its arguments.
        engine: As of `Session`.
        observers: Called with every event.
        options: What `SessionOptions` lists: `memo=`, `token_budget=`, ...

    Raises:
        SessionError: An event loop runs already; `await` the call there instead.

    Example:
        ``run(answer, row, memo="memo")``
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_call(fn, args, Session(engine, observers=observers, **options)))
    raise SessionError("run(...) is for synchronous programs; in async code await the call itself")


async def _call(fn: Callable[..., Awaitable[T]], args: tuple[Any, ...], session: Session) -> T:
    async with session:
        return await fn(*args)
