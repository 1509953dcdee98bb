"""A shadow: the body of a pure operator, run again as if an open call had a guessed value.

A coroutine cannot be forked, but a pure body may be run twice. What the shadow awaits is answered

- by the guess, where it is the guessed call;
- from memory, where it is remembered, or by the session's own call where that is under way;
- else early: it is computed now, and is there if the session comes to ask it.

So branches, loops and depth need no code of their own: the shadow takes them. It changes nothing
that anybody sees. It ends, as if it had been cancelled, where it would do what cannot be undone, or
needs what it cannot have: an impure call, a tool that is no pure operator, an answer that fails.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, Protocol

from helium_agents.graph.concurrently import values_of
from helium_agents.graph.inline import check_may_await, run_body
from helium_agents.graph.models import Models
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Outcome
from helium_agents.graph.tool_call import ToolCall
from helium_agents.graph.trace import Frame, Tally, entered_frame
from helium_agents.runtime.known_inputs import with_inputs
from helium_agents.runtime.settle import delivered
from helium_agents.runtime.speculation.ending import ended_or_left, leave_for_ever
from helium_agents.runtime.speculation.replays import Replays

_MOST_WAITS = 1_000
"""A guess that is wrong may let a body loop for ever over what is known."""

_MOST_STOPS = 8
"""A task that goes on after so many does so for ever."""

_MOST_DEPTH = 40
_WAITS_BETWEEN_YIELDS = 16


class World(Protocol):
    """What a shadow knows of its session."""

    @property
    def models(self) -> Models:
        """The session's models."""
        ...

    @property
    def replays(self) -> Replays:
        """What shadows may take of the event loop's time."""
        ...

    async def answer(self, node: Node, shadow: Shadow) -> Outcome | None:
        """What a call comes to, before its own form is made of it; `None`: the shadow must end.

        Where a pure operator's body calls others, that runs in the shadow.
        """
        ...

    def calls_others(self, node: OperatorNode) -> None:
        """The body of a pure operator has made a call."""
        ...

    def cannot_end(self, node: OperatorNode) -> None:
        """The body of a pure operator goes on whenever it is ended."""
        ...


class Shadow:
    """One of them; to its body it is what a session is.

    Args:
        world: The session.
        known: What the calls with these keys come to, as is guessed.

    Attributes:
        models: The session's models.
        task: What runs it; `None` before.
        is_over: Whether nothing may come of it any more.
    """

    def __init__(self, world: World, known: dict[bytes, Outcome]) -> None:
        self.models = world.models
        self.known = known
        self.task: asyncio.Task[None] | None = None
        self.is_over = False
        self._body: asyncio.Task[None] | None = None
        self._world = world
        self._num_waits = 0
        self._num_stops: Counter[asyncio.Task[Any] | None] = Counter()
        self._left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def again(self, node: OperatorNode) -> OperatorNode:
        """The call whose body is to be run, as a call of this shadow's."""
        return OperatorNode(Frame(self, is_pure=True), node.body, node.args, node.kwargs)

    async def run(self, node: OperatorNode) -> None:
        """Run the body of a call that `again` gave; what it comes to does not matter."""
        self._body = asyncio.create_task(self._run(node))
        if not await ended_or_left(self._body, self._left):
            self._world.cannot_end(node)

    async def _run(self, node: OperatorNode) -> None:
        try:
            work = run_body(node, None, Tally(), on_begin=self.not_timed)
            await self._world.replays.timed(work)
        except KeyboardInterrupt:
            raise
        except BaseException:  # what is guessed may be what the body cannot have, or exits for
            self.end()

    def not_timed(self) -> None:
        """Nobody's time-outs hold in it: a guess waits longer for its turn than what is asked."""

    def end(self) -> None:
        """Nothing more may come of it."""
        self.is_over = True
        task = self.task
        # a second time would interrupt its clean-up
        is_ending = self._body is asyncio.current_task()
        if task is not None and not (is_ending or task.cancelling()):
            task.cancel()

    def _stop(self) -> NoReturn:
        """End it here: to the code that runs it looks as if it were cancelled."""
        self.end()
        raise asyncio.CancelledError("this run was only a guess")

    async def _leave(self) -> None:
        """The task that runs goes on whatever ends it: here it stays."""
        if not self._left.done():
            self._left.set_result(None)
        task = asyncio.current_task()
        assert task is not None
        leave_for_ever(task)
        await asyncio.get_running_loop().create_future()

    # --- what a frame asks of its session ------------------------------------------------------

    def on_created(self, node: Node) -> None:
        """A call was made."""
        caller = node.frame.node
        if isinstance(caller, OperatorNode) and caller.frame.parent is not None:
            self._world.calls_others(caller)

    def on_awaited(self, node: Node) -> None:
        """Only pure operators come here, which are not run by their awaiters."""

    def on_ended(self, node: Node) -> None:
        """As above."""

    def on_effect(self) -> None:
        """What cannot be undone is about to happen."""
        self._stop()

    def running_tool(
        self, frame: Frame, call: ToolCall, *, is_operator: bool
    ) -> AbstractContextManager[None]:
        """A tool that is no operator may do anything."""
        if not is_operator:
            self._stop()
        return nullcontext()

    def waiting(self) -> str:
        """What it is."""
        return "a run that is only a guess"

    def start(self, node: Node) -> None:
        """Nothing: it will be asked early when it is awaited."""

    async def stream(self, node: Node) -> AsyncIterator[str]:
        """The text, all at once."""
        yield (await self.wait(node)).text

    async def wait(self, node: Node) -> Any:
        """What a call comes to, for all that is known."""
        self._num_waits += 1
        if self._num_waits % _WAITS_BETWEEN_YIELDS == 0 or self.is_over:
            await asyncio.sleep(0)
        frame = entered_frame()
        if self.is_over:
            task = asyncio.current_task()
            self._num_stops[task] += 1
            if self._num_stops[task] > _MOST_STOPS:
                await self._leave()
        if self.is_over or self._num_waits > _MOST_WAITS or frame is None:
            self._stop()
        if frame.depth > _MOST_DEPTH or not self._world.replays.may_go_on:
            self._stop()
        check_may_await(node, frame)
        if node.outcome is None:
            outcome = await self._outcome(node)
            if node.outcome is None:
                node.settle(outcome)
        assert node.outcome is not None
        return node.outcome.get()

    async def _outcome(self, asked: Node) -> Outcome:
        node = asked
        if asked.inputs:
            await values_of([self.wait(source) for source in asked.inputs])
            node = with_inputs(asked)
        if node.key is None:  # of a call that is not shared: nobody could have what it comes to
            self._stop()
        outcome = self.known.get(node.key)
        if outcome is None:
            outcome = await self._world.answer(node, self)
            if outcome is None or self.is_over:
                self._stop()
        return delivered(node, outcome)
