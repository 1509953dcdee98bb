"""A replay: a row run on what a memo holds, to see which calls it would have to compute.

Nothing is asked of an engine and nothing is written. A model call that misses is not answered at
all, neither by a placeholder nor by an error: either could lead the program where a real run would
not go. The row goes as far as it gets without, then it is left. A pure operator that misses is
computed, which takes no model unless its body asks one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from helium_agents.diagnose.provenance import Provenance, read_provenance
from helium_agents.engines.engine import ChatMessage, Engine, OnDelta, Request
from helium_agents.engines.whole_engine import WholeEngine
from helium_agents.errors import ItemError
from helium_agents.memo.memory import MemoryStore
from helium_agents.memo.store import Store
from helium_agents.runtime.session import Session
from helium_agents.telemetry.events import CallMissed, Event


@dataclass(frozen=True, slots=True)
class Replayed:
    """How far a row got.

    Args:
        num_found: Calls whose answers were in the memo.
        misses: What the calls asked that were not, in the order in which they came up.
        failure: What the row raised; `None` where it ended well, or waits for a missing answer.
    """

    num_found: int
    misses: tuple[Provenance, ...]
    failure: BaseException | None


async def replay(
    fn: Callable[[Any], Awaitable[Any]],
    row: Any,
    engine: Engine,
    store: Store,
    *,
    patience_s: float = 0.5,
) -> Replayed:
    """Run a row on what a store holds.

    Args:
        fn: The workflow; its own code runs, with what that does to the world.
        row: The row, as `map` would get it.
        engine: Says which model it is; it is not started.
        store: What is remembered; it is only read.
        patience_s: A row that misses a model's answer, and for so long has asked nothing else,
            gets no further and is left. Before the first such miss it may take its time.
    """
    missed: dict[bytes, None] = {}
    patience = asyncio.timeout(None)
    is_waiting = False

    def watch(event: Event) -> None:
        nonlocal is_waiting
        if isinstance(event, CallMissed):
            missed.setdefault(event.record())
            is_waiting = is_waiting or event.kind == "llm"
        if is_waiting and not patience.expired():
            patience.reschedule(asyncio.get_running_loop().time() + patience_s)

    session = Session(_Mute(engine), memo=_Overlay(store), observers=[watch])
    failure = None
    try:
        async with patience, session, session.map(fn, [row], on_error="collect") as results:
            result = await anext(results)
            failure = result.__cause__ if isinstance(result, ItemError) else None
    except TimeoutError:  # it waits for a missing answer
        pass
    counts = session.summary
    num_found = counts.calls_by_source["memo"] + counts.operators_by_source["memo"]
    calls = map(read_provenance, missed)
    return Replayed(num_found, tuple(call for call in calls if call is not None), failure)


class _Overlay(MemoryStore):
    """A store over another one, which it reads and never writes."""

    def __init__(self, below: Store) -> None:
        super().__init__()
        self._below = below

    def get(self, key: bytes) -> bytes | None:
        """The value that was put here, or else the one below."""
        found = super().get(key)
        return self._below.get(key) if found is None else found


class _Mute:
    """The same model as another engine has, but it never answers.

    Args:
        engine: The other one. What decides keys is its own: who it is, and whether it truncates.
    """

    def __init__(self, engine: Engine) -> None:
        whole = WholeEngine(engine)
        self.name = engine.name
        self.identity = engine.identity
        self.identity_parts = whole.identity_parts
        self.follows_schemas = whole.follows_schemas
        self.calls_tools = whole.calls_tools
        self.takes_images = whole.takes_images
        if whole.truncates:
            self.truncate = whole.truncate

    async def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]] = ()
    ) -> NoReturn:
        """Never end: this comes first, before the time of a call begins."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody has that future")

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> NoReturn:
        """Never be called."""
        raise AssertionError("a request needs its prompt first")
