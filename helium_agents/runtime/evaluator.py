"""Evaluating a call whose inputs are known: its body is run, or its model asked.

A model is asked again where that may help: an error that may pass, a reply that does not fit. What
it comes to is kept, and the flight lands.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from helium_agents.engines.engine import a_request, nobody
from helium_agents.errors import InvalidReply, TransientEngineError
from helium_agents.graph.inline import run_body
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Value
from helium_agents.graph.reply import Reply
from helium_agents.graph.trace import Tally
from helium_agents.runtime.answers import Answers
from helium_agents.runtime.dispatch.dispatcher import Dispatcher
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.flight import Flight
from helium_agents.runtime.flights import Flights
from helium_agents.runtime.known_inputs import check_result
from helium_agents.runtime.record import Answer
from helium_agents.runtime.reports import Reports
from helium_agents.runtime.settle import parse_choices
from helium_agents.runtime.speculation.speculation import Speculation
from helium_agents.runtime.timeout import set_done

FIRST_BACKOFF_S = 0.1
"""Wait before the first retry of a transient engine error; it doubles each time."""

TURN_S = 0.002
"""For how long prompts are rendered in one round of the event loop, if there are more of them."""

_MOST_TURNS = 64


class Evaluator:
    """Evaluates calls, each in its flight's task.

    Args:
        engines: The session's engines.
        dispatcher: Takes requests.
        flights: All unfinished flights.
        answers: What is remembered, or `None`.
        speculation: Guesses what calls come to, or `None`.
        reports: Tells who observes, or `None` where nobody does.
        next_number: Numbers the calls that nobody has made but us.
    """

    def __init__(
        self,
        engines: EnginePool,
        dispatcher: Dispatcher,
        flights: Flights,
        answers: Answers | None,
        speculation: Speculation | None,
        reports: Reports | None,
        next_number: Callable[[], int],
    ) -> None:
        self._engines = engines
        self._dispatcher = dispatcher
        self._flights = flights
        self._answers = answers
        self._speculation = speculation
        self._reports = reports
        self._next_number = next_number
        self._request_ids = count()
        self._turns = Turns()

    async def evaluate(self, flight: Flight, asked: Node, node: Node) -> None:
        """Compute an answer, keep it, and land the flight; what fails is raised.

        Args:
            flight: The flight.
            asked: The call as it was asked.
            node: The call with its inputs' values put in.
        """
        if isinstance(node, LlmNode) and node.draws_again:
            self._flights.land(flight, Value(await self._draw_until_fit(flight, node)))
            return
        answers = self._answers
        if answers is not None and answers.heeds_misses:
            answers.note_miss(node)
        value: Any
        if isinstance(node, LlmNode):
            value = await self._ask(flight, node)
        else:
            assert isinstance(node, OperatorNode)
            value = await self._run_pure(flight, node)
            if not node.is_current():
                answers = None  # it is the answer of what the body names now
        if answers is not None:
            answers.keep(node, asked, value, calls_below=flight.calls_below)
        self._flights.land(flight, Value(value))

    async def _run_pure(self, flight: Flight, node: OperatorNode) -> Any:
        """Run a pure operator's body."""
        flight.doing = "its body runs"
        tally, speculation = Tally(), self._speculation
        asked = flight.node
        if self._reports is not None and isinstance(asked, OperatorNode):
            self._reports.body_began(asked)
        work = partial(run_body, node, flight.item, tally, on_begin=flight.begin)
        try:
            value = await (work() if speculation is None else speculation.run(flight, node, work))
        finally:
            flight.calls_below = tally.num_calls
        check_result(node, value)
        return value

    async def _draw_until_fit(self, flight: Flight, node: LlmNode) -> Reply[Any]:
        """The first draw that fits the schema; each is a call of its own, which may be shared."""
        retries = node.call.retries
        for number in range(retries + 1):
            attempt = node.attempt(number)
            if self._reports is not None:
                attempt.number = self._next_number()
            flight.doing = f"waits for draw {number + 1} of at most {retries + 1}"
            if attempt.outcome is None:
                landed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._flights.hold(
                    flight,
                    self._flights.ask(attempt, flight.item),
                    partial(set_done, landed),
                    on_begun=flight.begin,
                )
                await landed
            assert attempt.outcome is not None
            choices = attempt.outcome.get().choices
            try:
                return Reply(choices, parse_choices(node, choices))
            except InvalidReply:
                if number == retries:
                    raise
        raise AssertionError("unreachable")

    async def _ask(self, flight: Flight, node: LlmNode) -> Answer:
        """Ask the engine, again where it may help."""
        asked, usage = flight.node, flight.usage
        assert isinstance(asked, LlmNode)
        headers = None if self._reports is None else self._reports.request_began(asked)
        for attempt in count():
            flight.doing = "waits for its engine to render the prompt"
            if (turn := self._turns.take()) is not None:
                await turn
            request = await self._engines[node.call.model].prepare(node)
            request.request_id = usage.request_id = f"helium-{next(self._request_ids)}"
            request.item = None if flight.item is None else flight.item.rank
            request.depth, request.call = node.frame.depth, asked
            request.on_attempt, request.headers = flight.begin_attempt, headers
            flight.request, flight.doing = request, "waits for its turn"
            early = None
            if self._speculation is not None and self._speculation.bodies:
                early = self._speculation.ask(flight, node, request)
            try:
                completion = await self._dispatcher.complete(request, early)
            except TransientEngineError:
                if attempt >= _most_retries(flight):
                    raise
                flight.doing = "waits a moment, after an error of its engine that may pass"
                await asyncio.sleep(FIRST_BACKOFF_S * 2**attempt)
            else:
                usage.cached_tokens = completion.cached_tokens
                usage.begun_s, usage.read_s = completion.begun_s, completion.read_s
                usage.first_token_s = completion.first_token_s
                if self._reports is not None:
                    self._reports.request_answered(request, completion)
                return Answer(
                    completion.choices, completion.prompt_tokens, completion.output_tokens
                )
            finally:
                flight.request = None
                # an engine may keep what it was asked, but not for whom
                request.call, request.describe = None, a_request
                request.on_attempt = request.on_moved = nobody
        raise AssertionError("unreachable")


def _most_retries(flight: Flight) -> int:
    """The most that any of the calls grants that the flight answers: no key tells it."""
    return max(node.call.retries for node, _ in flight.nodes if isinstance(node, LlmNode))


class Turns:
    """Lets what many calls do at once be done a few at a time, with the event loop between.

    A prompt is rendered in the event loop, in half a millisecond. Hundreds that become ready
    together would hold it until the last one is, and so long no engine would hear of the first.
    Turns are given in the order in which they are asked for.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._num_given = 0  # in this round of the event loop; 0 is before the first
        self._began_s = 0.0

    def take(self) -> asyncio.Future[None] | None:
        """What to wait for until it is one's turn; `None` where it is now."""
        loop = asyncio.get_running_loop()
        if not self._num_given:
            self._num_given, self._began_s = 1, loop.time()
            loop.call_soon(self._next, loop)
        elif self._waiting or loop.time() - self._began_s >= TURN_S:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(turn)
            return turn
        return None

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give as many turns as a round has time for, by how long the last one took."""
        now_s, num_given = loop.time(), 0
        is_short = now_s - self._began_s < TURN_S
        most = self._num_given * 2 if is_short else self._num_given // 2
        while self._waiting and num_given < min(max(1, most), _MOST_TURNS):
            turn = self._waiting.popleft()
            if not turn.done():  # who asked for it may have been cancelled
                turn.set_result(None)
                num_given += 1
        self._num_given, self._began_s = num_given, now_s
        if num_given:  # these are woken first
            loop.call_soon(self._next, loop)
