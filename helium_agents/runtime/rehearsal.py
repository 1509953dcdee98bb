"""A rehearsal: a row run on what a memo holds, to see which calls it would have to compute.

Nothing is asked of an engine and nothing is written. A model call that misses is not answered at
all, neither by a placeholder nor by an error: either could lead the program where a real run would
not go. The row goes as far as it gets without, then it is left. A pure operator that misses is
computed, which takes no model unless its body asks one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from helium_agents.engines.engine import (
    Capacity,
    ChatMessage,
    Choice,
    Completion,
    Delta,
    Engine,
    PartedIdentity,
    Request,
)
from helium_agents.errors import ItemError
from helium_agents.graph.node import LlmNode, Node
from helium_agents.memo.store import Store
from helium_agents.runtime.engine_pool import EnginePool
from helium_agents.runtime.facts import Facts, read_facts, write_facts
from helium_agents.runtime.recall import Recall
from helium_agents.runtime.session import Session
from helium_agents.telemetry.events import Event


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """How far a row got.

    Args:
        num_found: Calls whose answers were in the memo.
        misses: What the calls asked that were not, in the order in which they came up.
        failure: What the row raised; `None` where it ended well, or waits for a missing answer.
    """

    num_found: int
    misses: tuple[Facts, ...]
    failure: BaseException | None


async def rehearse(
    fn: Callable[[Any], Awaitable[Any]],
    row: Any,
    engine: Engine,
    store: Store,
    *,
    patience_s: float = 0.5,
) -> Rehearsed:
    """Run a row on what a store holds.

    Args:
        fn: The workflow; its own code runs, with what that does to the world.
        row: The row, as `map` would get it.
        engine: Says which model it is; it is not started.
        store: What is remembered; it is only read.
        patience_s: A row that misses a model's answer, and for so long has asked nothing else,
            gets no further and is left. Before the first such miss it may take its time.
    """
    session = _RehearsalSession(engine, store, patience_s)
    failure = None
    with suppress(TimeoutError):
        async with session, asyncio.timeout(None) as patience:
            with session.losing(patience):
                async with session.map(fn, [row], on_error="collect") as results:
                    result = await anext(results)
            failure = result.__cause__ if isinstance(result, ItemError) else None
    found = (read_facts(facts) for facts in session.missed)
    counts = session.summary
    num_found = counts.calls_by_source["memo"] + counts.operators_by_source["memo"]
    return Rehearsed(num_found, tuple(facts for facts in found if facts is not None), failure)


class _RehearsalSession(Session):
    """A session that notes what it would compute, and loses patience when nothing moves on."""

    def __init__(self, engine: Engine, store: Store, patience_s: float) -> None:
        super().__init__(_Mute(engine), memo_mode="replay-only", observers=[self._on_event])
        self.missed: dict[bytes, None] = {}
        self._store = store
        self._is_waiting = False
        self._patience_s = patience_s
        self._patience: asyncio.Timeout | None = None

    @contextmanager
    def losing(self, patience: asyncio.Timeout) -> Iterator[None]:
        """Have it expire when, in the block, a model's answer is missing and nothing moves on."""
        self._patience = patience
        try:
            yield
        finally:
            self._patience = None

    def note(self, node: Node) -> None:
        """A call is about to be computed."""
        model = None
        if isinstance(node, LlmNode):
            model, self._is_waiting = self._pool.facts(node.call.model), True
        self.missed.setdefault(write_facts(node, model))
        self._be_patient()

    def _open_recall(self) -> Recall | None:
        return _NotingRecall(self._pool, self._store, self.note)

    def _on_event(self, _: Event) -> None:
        self._be_patient()

    def _be_patient(self) -> None:
        patience = self._patience
        if self._is_waiting and patience is not None and not patience.expired():
            patience.reschedule(self._loop.time() + self._patience_s)


class _NotingRecall(Recall):
    """What a store remembers; says what it does not."""

    def __init__(self, engines: EnginePool, store: Store, note: Callable[[Node], None]) -> None:
        super().__init__(engines, store, "replay-only", run_id="")
        self._note = note

    def check_may_compute(self, node: Node) -> None:
        """Let it begin: a model never answers here."""
        self._note(node)


class _Mute:
    """A model of which everything is known but its answers; an `Engine`."""

    is_started = True
    capacity: Capacity | None = None

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        return self._engine.name

    def identity(self) -> str:
        return self._engine.identity()

    def identity_parts(self) -> dict[str, str]:
        engine = self._engine
        return engine.identity_parts() if isinstance(engine, PartedIdentity) else {}

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        return self._engine.truncate(choice, max_tokens)

    async def start(self) -> None:
        """Nothing is to be started."""

    async def close(self) -> None:
        """Nothing was started."""

    async def render(self, messages: Sequence[ChatMessage]) -> NoReturn:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        raise AssertionError("render comes first, and never returns")
