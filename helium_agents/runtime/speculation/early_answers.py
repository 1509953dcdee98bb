"""Early answers: what is computed before anybody has asked for it, by key.

An early answer is that of a model, or the value of a pure operator whose body makes no calls. It is
*wanted* by runs that are guesses, and *claimed* by the session's own call with the same key, which
takes it in place of asking its engine, or running its body. All else of that call is as ever: when
it is looked up, kept, reported and paid for. Nothing is kept of an answer that nobody claims, and
when nobody wants it any more it is dropped, or aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from functools import partial
from itertools import count
from typing import Any

from helium_agents.engines.engine import Completion, Request
from helium_agents.errors import EngineDied
from helium_agents.graph.concurrently import ended
from helium_agents.graph.inline import run_body
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.trace import Tally
from helium_agents.runtime.dispatch.dispatcher import Dispatcher
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.known_inputs import check_result
from helium_agents.runtime.speculation.early_answer import EarlyAnswer
from helium_agents.runtime.speculation.ending import ended_or_left, warn_of_endless
from helium_agents.runtime.tasks import Tasks

_MOST_DEATHS = 2


class NotWorthIt(Exception):
    """An early answer is not worth what it costs."""


Work = Callable[[EarlyAnswer], Coroutine[Any, Any, Any]]


class EarlyAnswers:
    """All early answers of a session.

    Args:
        engines: The session's engines.
        dispatcher: Takes requests.
        tasks: The session's tasks.
        is_turn: Waits for the time to make a request, and says whether it is worth it then.
        on_dropped: Called with one that is given up, before anybody has claimed it.
    """

    def __init__(
        self,
        engines: EnginePool,
        dispatcher: Dispatcher,
        tasks: Tasks,
        is_turn: Callable[[EarlyAnswer, LlmNode, Request], Awaitable[bool]],
        on_dropped: Callable[[EarlyAnswer], None],
    ) -> None:
        self._engines = engines
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._is_turn = is_turn
        self._on_dropped = on_dropped
        self._by_key: dict[bytes, EarlyAnswer] = {}
        self._of: dict[Hashable, dict[EarlyAnswer, None]] = {}  # by who wants them
        self._ids = count()
        self._are_leaves: dict[str, bool] = {}  # by operator: whether bodies make no calls
        self._endless: set[str] = set()  # operators whose bodies cannot be ended
        self._deaths: dict[str | None, set[int]] = {}  # by model: which it died with these on it

    # --- making them ---------------------------------------------------------------------------

    def find(self, key: bytes) -> EarlyAnswer | None:
        """The one with a key."""
        return self._by_key.get(key)

    def may_ask(self, model: str | None) -> bool:
        """Whether a model may be asked early: those that die of it cost more than guesses win."""
        return len(self._deaths.get(model, ())) < _MOST_DEATHS

    def ask(self, node: LlmNode, wanted_by: Hashable) -> EarlyAnswer:
        """Begin to compute a model's answer, unless that has begun."""
        assert node.key is not None
        early = self._by_key.get(node.key) or self._begin(
            node.key, node.label, partial(self._complete, node)
        )
        self.want(early, wanted_by)
        return early

    def may_run(self, node: OperatorNode) -> bool:
        """Whether bodies of an operator end when they are cancelled, as far as is known."""
        return node.body.identity not in self._endless

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
        if not await self._is_turn(early, node, request):
            raise NotWorthIt
        early.request = request
        early.idle = self._dispatcher.idle_requests(model)
        return await early.idle.complete(request)

    async def _run_body(self, node: OperatorNode, early: EarlyAnswer) -> Any:
        early.begun()
        loop = asyncio.get_running_loop()
        body = loop.create_task(_value(node, early.begun))
        if not await ended_or_left(body, loop.create_future()):
            self._endless.add(node.body.identity)
            warn_of_endless(f"{node.label} is run early no more")
            raise asyncio.CancelledError
        if body.cancelled() or isinstance(body.exception(), KeyboardInterrupt):
            raise asyncio.CancelledError  # the loop itself hands on what ends the program
        value = body.result()
        check_result(node, value)
        if not self._are_leaves.setdefault(node.body.identity, True):
            raise asyncio.CancelledError  # see `no_leaf`
        return value

    def _end(self, early: EarlyAnswer, error: BaseException | None) -> None:
        """Its task has ended, whichever way."""
        if not (early.is_there and early.wanted_by):
            self._forget(early)
        if isinstance(error, EngineDied) and early.request is not None:
            model = early.request.model
            self._deaths.setdefault(model, set()).add(self._engines[model].num_deaths)
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

    def claim(self, node: Node, *, is_streamed: bool = False) -> EarlyAnswer | None:
        """The answer of a call that is asked now: there, or under way; `None` where there is none.

        A request that waits for its turn is given up: that of the call itself comes sooner. So is
        one under way whose text somebody reads as it comes, since nobody has heard the beginning. A
        body that runs is waited for only where those of its operator are known to make no calls.
        """
        early = None if node.key is None else self._by_key.get(node.key)
        if early is None or early.is_claimed:
            return None
        if not early.is_there:
            if isinstance(node, OperatorNode):
                if not self._are_leaves.get(node.body.identity, False):
                    return None
            elif is_streamed or not early.promote():
                self._cancel(early)
                return None
        early.is_claimed = True
        return early

    async def taken(self, early: EarlyAnswer) -> bool:
        """Wait until a claimed answer is there; whether it is.

        Who leaves ends it, and waits for its clean-up, as if it were of his own making.

        Raises:
            Exception: Its computation failed, after it had been claimed.
        """
        try:
            if not early.is_there:
                await asyncio.wait((early.ended,))  # which leaves the future to the others
        except BaseException:
            self._cancel(early)
            if early.task is not None:
                await ended([early.task])
            raise
        if early.error is not None:
            raise early.error
        return early.is_there


async def _value(node: OperatorNode, on_begin: Callable[[], None]) -> Any:
    """What a pure operator's body comes to."""
    try:
        return await run_body(node, None, Tally(), on_begin=on_begin)
    except SystemExit as error:  # of a guess that is wrong, perhaps: the program goes on
        raise asyncio.CancelledError from error
