"""The executor: makes a plan happen, and takes each call from its inputs to a kept answer.

From top to bottom: the inputs come; the call, now that they are known, is looked up once more; a
model is asked or a body run; the answer is kept; the calls are settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from functools import partial
from itertools import count
from typing import Any

from helium_agents.engines.engine import (
    Capacity,
    Completion,
    Request,
    a_request,
    nobody,
)
from helium_agents.errors import (
    InvalidReply,
    RefMisuse,
    TransientEngineError,
)
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM, ended
from helium_agents.graph.inline import run_body
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.naming import describe
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Failure, Outcome, Value
from helium_agents.graph.plan_node import Known, Prefix, Same
from helium_agents.graph.ref import value_of
from helium_agents.graph.reply import Reply
from helium_agents.graph.trace import Tally
from helium_agents.optimizer.optimize import Cut, Join, PhysicalPlan
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.runtime.alarm import set_done
from helium_agents.runtime.answers import Answers, Found, fit_choice, is_memorable
from helium_agents.runtime.bodies import Bodies
from helium_agents.runtime.dispatcher import Dispatcher
from helium_agents.runtime.engine_pool import EnginePool
from helium_agents.runtime.fleet import Fleet, chat_of
from helium_agents.runtime.flight import Flight, Waiter
from helium_agents.runtime.flights import Flights
from helium_agents.runtime.item import Item
from helium_agents.runtime.known_inputs import check_result, with_inputs
from helium_agents.runtime.record import Answer
from helium_agents.runtime.settle import parse_choices
from helium_agents.runtime.speculation import Speculation
from helium_agents.runtime.tasks import Tasks
from helium_agents.telemetry.events import (
    BodyBegan,
    EngineDescribed,
    Observer,
    RequestAnswered,
    RequestBegan,
    Source,
)

FIRST_BACKOFF_S = 0.1
"""Wait before the first retry of a transient engine error; it doubles each time."""


class Executor:
    """Runs planned flights.

    Args:
        engines: The session's engines.
        dispatcher: Takes requests.
        flights: All unfinished flights.
        answers: What is remembered, or `None`.
        tasks: The session's tasks.
        looks_up: Whether a call whose inputs have come is looked up once more.
        shares: Whether it may join an equal one in flight.
        emit: Takes events, or `None` where nobody but the summary does.
        number: Gives a call that nobody has made but us its number.
        speculation: Guesses what calls come to, or `None`.
        bodies: The operator calls that events name.
    """

    def __init__(
        self,
        engines: EnginePool,
        dispatcher: Dispatcher,
        flights: Flights,
        answers: Answers | None,
        tasks: Tasks,
        *,
        looks_up: bool,
        shares: bool,
        emit: Observer | None,
        number: Callable[[Node], None],
        speculation: Speculation | None,
        bodies: Bodies,
    ) -> None:
        self._engines = engines
        self._dispatcher = dispatcher
        self._flights = flights
        self._answers = answers
        self._tasks = tasks
        self._looks_up = looks_up
        self._shares = shares
        self._emit = emit
        self._number = number
        self._speculation = speculation
        self._bodies = bodies
        self._described: dict[Fleet, tuple[Capacity | None, StepCost | None]] = {}
        self._request_ids = count()

    # --- making a plan happen ------------------------------------------------------------------

    def carry_out(self, plan: PhysicalPlan, flights: dict[int, Flight]) -> None:
        """Make a plan happen.

        First calls take hold of what they need, calls before their inputs, so that what nobody
        holds by then is needed by none. Then what is to be computed begins, in the order in which
        it was asked for.

        Args:
            plan: What to do for which call.
            flights: Those of its calls, as `Flights.of` gives them.
        """
        to_compute: list[Flight] = []
        for id_, flight in flights.items():
            if not flight.waiters:
                self._flights.leave_unwanted(flight)
                continue
            match plan.actions[id_]:
                case Known(found):
                    self.settle_known(flight, found)
                case Same(of):
                    self._join(flight, flights[of], "merged")
                case Prefix(of):
                    self._cut(flight, flights[of])
                case Join(other):
                    self._join(flight, other, "joined")
                case Cut(other):
                    self._cut(flight, other)
                case _:
                    if flight.node.inputs:
                        self._hold_inputs(flight)
                    to_compute.append(flight)
        for flight in reversed(to_compute):
            self._take(flight, self._begin_if_ready)

    def settle_known(self, flight: Flight, found: Found) -> None:
        """Give a flight that has not begun a remembered answer."""
        if flight.item is not None:
            self._dispatcher.remembered(flight.item.rank, found.is_of_this_run)
        flight.credit("earlier" if found.is_of_this_run else "memo")
        flight.calls_below = found.calls_below
        self._flights.land(flight, Value(found.value))

    def _join(self, flight: Flight, other: Flight, how: Source) -> None:
        if other.outcome is not None or other.is_left:  # of what was planned beside it
            self._start(flight)
            return
        try:
            self._flights.join(flight, other, how)
        except RefMisuse as error:
            self._flights.land(flight, Failure(error))

    def _cut(self, flight: Flight, longer: Flight) -> None:
        """Cut a flight's answer from that of the same call with more tokens.

        Where the longer call fails (it may be too long for the model) or its answer cannot be cut
        exactly, the call is computed for itself, as the plain program does.
        """
        if longer.outcome is not None or longer.is_left:
            self._start(flight)
            return
        flight.doing = "waits for a longer answer to the same question"
        try:
            hold = self._flights.hold(
                flight,
                longer,
                lambda: self._soon(flight, self._take_prefix, hold),
                on_begun=flight.begin,
            )
        except RefMisuse as error:
            self._flights.land(flight, Failure(error))

    def _start(self, flight: Flight) -> None:
        """Compute a flight's answer as soon as its inputs are there."""
        self._hold_inputs(flight)
        self._take(flight, self._begin_if_ready)

    def _hold_inputs(self, flight: Flight) -> None:
        """See to it that the inputs of a flight come, or fail it where they would wait for it."""
        flight.doing = "waits for its inputs"
        try:
            for source in flight.node.inputs:
                if source.outcome is None:
                    wake = partial(self._soon, flight, self._begin_if_ready)
                    self._flights.hold(flight, self._input(source, flight.item), wake)
        except RefMisuse as error:
            self._flights.land(flight, Failure(error))

    def _input(self, source: Node, item: Item | None) -> Flight:
        """The flight of an input. That of a plain operator sees to its own inputs in its body."""
        if source.is_planned or source.flight is not None:
            return self._flights.ask(source, item)
        flight = self._flights.new(source, item)
        self._flights.plan(flight)
        self._run(flight, self._run_plain(flight))
        return flight

    async def _run_plain(self, flight: Flight) -> None:
        flight.doing = "its body runs"
        self._flights.land(flight, Value(await value_of(flight.node)))

    # --- inputs --------------------------------------------------------------------------------

    def _soon(self, flight: Flight, step: Callable[..., None], *args: Any) -> None:
        """Take a step in the next turn of the event loop: a chain of calls must not recurse."""
        asyncio.get_running_loop().call_soon(self._take, flight, step, *args)

    def _take(self, flight: Flight, step: Callable[..., None], *args: Any) -> None:
        """Take a step of a flight that is not over; whatever it raises is the flight's failure."""
        if flight.outcome is not None or flight.is_left or flight.task is not None:
            return
        try:
            step(flight, *args)
        except BaseException as error:  # a value that is no text, a store that cannot be read
            self._flights.land(flight, Failure(error))
            if isinstance(error, ENDS_THE_PROGRAM):
                raise

    def _begin_if_ready(self, flight: Flight) -> None:
        """Begin if all inputs are there, or fail if one is certain to fail the call.

        As in `gather`, that is the first failure in the order of the inputs, and what else was
        wanted for this call only has ended before the call fails.
        """
        inputs = flight.node.inputs
        while flight.next_input < len(inputs):
            outcome = inputs[flight.next_input].outcome
            if outcome is None:
                return
            if isinstance(outcome, Failure):
                failure = Failure(outcome.error)
                ending = self._flights.leave_inputs(flight)
                if ending:
                    self._run(flight, self._fail_after(flight, ending, failure))
                else:
                    self._flights.land(flight, failure)
                return
            flight.next_input += 1
        asked = flight.node
        node = with_inputs(asked) if inputs else asked
        if node is asked or not self._shares or not self._is_elsewhere(flight, asked, node):
            self._run(flight, self._compute(flight, asked, node))

    async def _fail_after(
        self, flight: Flight, ending: list[asyncio.Task[None]], failure: Failure
    ) -> None:
        await ended(ending)
        self._flights.land(flight, failure)

    def _is_elsewhere(self, flight: Flight, asked: Node, node: Node) -> bool:
        """Whether a call whose inputs have just become known is known, or computed, already."""
        answers, found = self._answers, None
        if asked.is_drawn:
            if answers is not None:
                found = answers.look_up_drawn(node, asked)
        elif not is_memorable(asked):
            return False
        elif answers is not None and self._looks_up:
            found = answers.look_up(node)
        if found is not None:
            if answers is not None and not asked.is_drawn:
                answers.keep(node, asked, found.value, calls_below=found.calls_below)
            self.settle_known(flight, found)
            return True
        if asked.is_drawn:
            return False
        running = None if node.key is None else self._flights.under_way.get(node.key)
        if running is None or running is flight:
            self._flights.enlist(flight, node.key)
            return False
        flight.doing = "waits for an equal call that is under way"
        hold = self._flights.hold(
            flight,
            running,
            lambda: self._soon(flight, self._take_equal, hold, asked, node),
            on_begun=flight.begin,
        )
        return True

    def _run(self, flight: Flight, work: Coroutine[Any, Any, None]) -> None:
        """Run a planned flight in a task; the work lands it, or else the task's end does."""
        end = partial(self._flights.end, flight)
        flight.task = self._tasks.spawn(work, end)

    # --- answers of other flights --------------------------------------------------------------

    def _take_equal(self, flight: Flight, hold: Waiter, asked: Node, node: Node) -> None:
        other = hold.flight
        assert other.outcome is not None
        if _may_pass(other.outcome):  # it had its own retries, and this call has its own
            self._flights.enlist(flight, node.key)
            self._run(flight, self._compute(flight, asked, node))
            return
        flight.credit("joined")
        flight.leader = other.node
        flight.calls_below = other.calls_below
        outcome: Outcome = other.outcome
        if isinstance(outcome, Failure):
            outcome = Failure(outcome.error)
        elif self._answers is not None:
            self._answers.keep(node, asked, outcome.value, calls_below=other.calls_below)
        self._flights.land(flight, outcome)

    def _take_prefix(self, flight: Flight, hold: Waiter) -> None:
        other, node = hold.flight, flight.node
        source = other.node
        if isinstance(other.outcome, Value):
            assert isinstance(node, LlmNode) and isinstance(source, LlmNode)
            max_tokens, asked_max = (n.call.sampling.max_tokens for n in (source, node))
            fleet = self._engines[node.call.model]
            answer = other.outcome.value
            choice = fit_choice(answer.choices[0], max_tokens, asked_max, fleet)
            if choice is not None:
                flight.credit("prefix")
                flight.leader = source
                self._flights.land(flight, Value(Answer.of((choice,), answer.prompt_tokens)))
                return
        self._start(flight)

    # --- computing -----------------------------------------------------------------------------

    async def _compute(self, flight: Flight, asked: Node, node: Node) -> None:
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
        if self._emit is not None and isinstance(asked, OperatorNode):
            self._emit(BodyBegan(self._bodies.of(asked), _rank_of(asked)))
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
            self._number(attempt)
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
        call, usage = node.call, flight.usage
        messages = chat_of(call)
        tools = () if call.tools is None else call.tools.schemas
        headers = None if self._emit is None else self._begin_request(self._emit, flight)
        flight.doing = "waits for its engine to render the prompt"
        prompt = await self._engines[call.model].render(messages, tools)
        for attempt in count():
            flight.doing = "waits for its turn"
            usage.request_id = f"helium-{next(self._request_ids)}"
            item = flight.item
            request = flight.request = Request(
                usage.request_id,
                messages,
                prompt,
                call.sampling,
                call.json_schema,
                model=call.model,
                item=None if item is None else item.rank,
                depth=node.frame.depth,
                call=flight.node,
                describe=partial(describe, node),
                on_attempt=flight.begin_attempt,
                tools=tools,
                tool_choice="auto" if call.tools is None else call.tools.choice,
                headers=headers,
            )
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
                usage.first_token_s = completion.first_token_s
                if self._emit is not None:
                    self._tell(self._emit, request, completion)
                return Answer(
                    completion.choices, completion.prompt_tokens, completion.output_tokens
                )
            finally:
                flight.request = None
                # an engine may keep what it was asked, but not for whom
                request.call, request.describe = None, a_request
                request.on_attempt = request.on_moved = nobody
        raise AssertionError("unreachable")

    def _begin_request(self, emit: Observer, flight: Flight) -> dict[str, str]:
        """Say that an engine is about to be asked; gives what is to be sent along over HTTP."""
        asked, headers = flight.node, dict[str, str]()
        assert isinstance(asked, LlmNode)
        call, body = asked.call, self._bodies.around(asked.frame)
        model = self._engines[call.model].name
        rank = _rank_of(asked)
        emit(RequestBegan(asked.number, body, rank, model, call.sampling, headers))
        return headers

    def _tell(self, emit: Observer, request: Request, completion: Completion) -> None:
        """Say what an engine has answered, and what it is able to do where that is news."""
        fleet = self._engines[request.model]
        described = fleet.capacity, fleet.cost
        if self._described.get(fleet) != described:
            self._described[fleet] = described
            capacity, cost = (None if each is None else asdict(each) for each in described)
            emit(EngineDescribed(fleet.name, fleet.num_engines, capacity, cost))
        choices = completion.choices
        emit(
            RequestAnswered(
                request.request_id,
                fleet.name,
                [message[:2] for message in request.messages],
                request.prompt_token_ids,
                request.max_tokens,
                [choice.text for choice in choices],
                [choice.token_ids for choice in choices],
                [choice.finish_reason for choice in choices],
                [choice.tool_calls for choice in choices],
            )
        )


def _rank_of(node: Node) -> int | None:
    """The top-level item that a call was made for; `None` outside of any."""
    item = node.frame.item
    return None if item is None else item.rank


def _most_retries(flight: Flight) -> int:
    """The most that any of the calls grants that the flight answers: no key tells it."""
    return max(node.call.retries for node, _ in flight.nodes if isinstance(node, LlmNode))


def _may_pass(outcome: Outcome) -> bool:
    return isinstance(outcome, Failure) and isinstance(outcome.error, TransientEngineError)
