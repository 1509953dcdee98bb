"""Early answers: what is computed before anybody has asked for it, by key.

An early answer is that of a model, or the value of a pure operator whose body makes no calls. It is
*wanted* by runs that are guesses, and *claimed* by the session's own call with the same key, which
takes it in place of asking its engine, or running its body. All else of that call is as ever: when
it is looked up, kept, reported and paid for. Nothing is kept of an answer that nobody claims, and
when nobody wants it any more it is dropped, or aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from helium_agents.engines.engine import Completion, Request
from helium_agents.graph.inline import run_body
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Value
from helium_agents.graph.trace import Tally
from helium_agents.runtime.dispatcher import Dispatcher
from helium_agents.runtime.engine_pool import EnginePool
from helium_agents.runtime.idle_requests import IdleRequests
from helium_agents.runtime.known_inputs import check_result
from helium_agents.runtime.record import Answer
from helium_agents.runtime.tasks import Tasks


class NotWorthIt(Exception):
    """An early answer is not worth what it costs."""


@dataclass(eq=False, slots=True)
class EarlyAnswer:
    """One of them.

    Args:
        key: That of the call.
        label: What a person calls it.
        ended: Made done when it is there, or will never be.
        stake: What was set on it, for who asked for it; opaque here.
        wanted_by: Who wants it; the first has begun it.
        task: What computes it.
        idle: Where its request waits or runs.
        request: What the engine is asked.
        sent_s: When it was begun last, by the event loop's clock; `None` while it waits.
        end_s: When it was there.
        is_there: Whether it was computed.
        value: A `Completion`, or the value of an operator.
        error: What computing it failed with.
        is_claimed: Whether somebody has asked for it.
    """

    key: bytes
    label: str
    ended: asyncio.Future[None]
    stake: Any = None
    wanted_by: dict[Hashable, None] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    idle: IdleRequests | None = None
    request: Request | None = None
    sent_s: float | None = None
    end_s: float = 0.0
    is_there: bool = False
    value: Any = None
    error: BaseException | None = None
    is_claimed: bool = False

    def begun(self) -> None:
        """Its computation proper begins."""
        self.sent_s = asyncio.get_running_loop().time()

    @property
    def outcome(self) -> Value:
        """What the call came to, before its own form is made of it."""
        value = self.value
        if isinstance(value, Completion):
            value = Answer(value.choices, value.prompt_tokens, value.output_tokens)
        return Value(value)

    @property
    def seconds(self) -> float:
        """How long it was computed so far."""
        end_s = self.end_s if self.is_there else asyncio.get_running_loop().time()
        return 0.0 if self.sent_s is None else end_s - self.sent_s

    @property
    def tokens(self) -> int | None:
        """What an engine has computed for it; `None` where that is not known."""
        if isinstance(self.value, Completion):
            value = self.value
            return value.prompt_tokens - value.cached_tokens + value.output_tokens
        return 0 if self.request is None or self.sent_s is None else None


Work = Callable[[EarlyAnswer], Coroutine[Any, Any, Any]]


class EarlyAnswers:
    """All early answers of a session.

    Args:
        engines: The session's engines.
        dispatcher: Takes requests.
        tasks: The session's tasks.
        turn_s: Asked before a request is made: when to make it, by the event loop's clock, or
            `None` where it is not worth it.
        on_dropped: Called with one that is given up, before anybody has claimed it.
    """

    def __init__(
        self,
        engines: EnginePool,
        dispatcher: Dispatcher,
        tasks: Tasks,
        turn_s: Callable[[EarlyAnswer, LlmNode, Request], float | None],
        on_dropped: Callable[[EarlyAnswer], None],
    ) -> None:
        self._engines = engines
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._turn_s = turn_s
        self._on_dropped = on_dropped
        self._by_key: dict[bytes, EarlyAnswer] = {}
        self._of: dict[Hashable, dict[EarlyAnswer, None]] = {}  # by who wants them
        self._ids = count()
        self._are_leaves: dict[str, bool] = {}  # by operator: whether bodies make no calls

    # --- making them ---------------------------------------------------------------------------

    def find(self, key: bytes) -> EarlyAnswer | None:
        """The one with a key."""
        return self._by_key.get(key)

    def ask(self, node: LlmNode, wanted_by: Hashable) -> EarlyAnswer:
        """Begin to compute a model's answer, unless that has begun."""
        assert node.key is not None
        early = self._by_key.get(node.key) or self._begin(
            node.key, node.label, partial(self._complete, node)
        )
        self.want(early, wanted_by)
        return early

    def run(self, node: OperatorNode, wanted_by: Hashable) -> EarlyAnswer:
        """Begin to run a pure operator's body, unless that has begun."""
        assert node.key is not None
        early = self._by_key.get(node.key) or self._begin(
            node.key, node.label, partial(self._run_body, node)
        )
        self.want(early, wanted_by)
        return early

    def _begin(self, key: bytes, label: str, work: Work) -> EarlyAnswer:
        ended = asyncio.get_running_loop().create_future()
        early = self._by_key[key] = EarlyAnswer(key, label, ended)
        early.task = self._tasks.spawn(self._compute(early, work), partial(self._end, early))
        return early

    async def _compute(self, early: EarlyAnswer, work: Work) -> None:
        early.value = await work(early)
        early.end_s = asyncio.get_running_loop().time()
        early.is_there = True

    async def _complete(self, node: LlmNode, early: EarlyAnswer) -> Completion:
        model = node.call.model
        request = await self._engines[model].prepare(node)
        request.request_id = f"helium-early-{next(self._ids)}"
        request.on_attempt = early.begun
        turn_s = self._turn_s(early, node, request)
        if turn_s is None:
            raise NotWorthIt
        await asyncio.sleep(turn_s - asyncio.get_running_loop().time())
        early.request = request
        early.idle = self._dispatcher.idle_requests(model)
        return await early.idle.complete(request)

    async def _run_body(self, node: OperatorNode, early: EarlyAnswer) -> Any:
        early.begun()
        try:
            value = await run_body(node, None, Tally(), on_begin=early.begun)
        except SystemExit as error:  # of a guess that is wrong, perhaps: the program goes on
            raise asyncio.CancelledError from error
        check_result(node, value)
        if not self._are_leaves.setdefault(node.body.identity, True):
            raise asyncio.CancelledError  # see `no_leaf`
        return value

    def _end(self, early: EarlyAnswer, error: BaseException | None) -> None:
        """Its task has ended, whichever way."""
        if not (early.is_there and early.wanted_by):
            self._forget(early)
        early.error = error
        if not early.ended.done():
            early.ended.set_result(None)

    # --- operators that call others ------------------------------------------------------------

    def may_be_leaf(self, node: OperatorNode) -> bool:
        """Whether no body of an operator has been seen to make a call."""
        return self._are_leaves.get(node.body.identity, True)

    def no_leaf(self, node: OperatorNode) -> None:
        """A body makes a call: what it comes to is no answer that others could have.

        They would miss what is kept and reported of the calls in it. So each runs such a body for
        itself, and only what that calls may be there early.
        """
        self._are_leaves[node.body.identity] = False
        early = None if node.key is None else self._by_key.get(node.key)
        if early is not None:
            self._cancel(early)

    # --- who wants them ------------------------------------------------------------------------

    def want(self, early: EarlyAnswer, wanted_by: Hashable) -> None:
        """Somebody wants one, until `leave`."""
        early.wanted_by[wanted_by] = None
        self._of.setdefault(wanted_by, {})[early] = None

    def leave(self, wanted_by: Hashable) -> None:
        """Somebody wants none any more: what nobody else wants is dropped."""
        for early in self._of.pop(wanted_by, {}):
            del early.wanted_by[wanted_by]
            if early.wanted_by or (early.is_claimed and not early.is_there):
                continue
            self._cancel(early)

    def _cancel(self, early: EarlyAnswer) -> None:
        self._forget(early)
        if early.task is not None and not early.task.done() and not early.task.cancelling():
            early.task.cancel()
        if not early.ended.done():
            early.ended.set_result(None)

    def _forget(self, early: EarlyAnswer) -> None:
        if self._by_key.get(early.key) is early:
            del self._by_key[early.key]
            if not early.is_claimed:
                self._on_dropped(early)

    # --- who asks for them ---------------------------------------------------------------------

    def claim(self, node: Node) -> EarlyAnswer | None:
        """The answer of a call that is asked now: there, or under way; `None` where there is none.

        A request that waits for its turn is given up: that of the call itself comes sooner. A body
        that runs is waited for only where those of its operator are known to make no calls.
        """
        early = None if node.key is None else self._by_key.get(node.key)
        if early is None or early.is_claimed:
            return None
        if not early.is_there:
            if isinstance(node, OperatorNode):
                if not self._are_leaves.get(node.body.identity, False):
                    return None
            elif (
                early.idle is None or early.request is None or not early.idle.promote(early.request)
            ):
                self._cancel(early)
                return None
        early.is_claimed = True
        return early

    async def taken(self, early: EarlyAnswer) -> bool:
        """Wait until a claimed answer is there; whether it is.

        Raises:
            Exception: Its computation failed, after it had been claimed.
        """
        try:
            if not early.is_there:
                await asyncio.wait((early.ended,))  # which leaves the future to the others
        except BaseException:
            early.is_claimed = False
            if not early.wanted_by:
                self._cancel(early)
            raise
        if early.error is not None:
            raise early.error
        return early.is_there
