"""The executor: makes a plan happen, and sees each call through until it can be evaluated.

From top to bottom: the inputs come; the call, now that they are known, is looked up once more, or
joins an equal one; else it is evaluated, in a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from helium_agents.errors import (
    RefMisuse,
    TransientEngineError,
)
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM, ended
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node
from helium_agents.graph.outcome import Failure, Outcome, Value
from helium_agents.graph.plan_node import Known, Prefix, Same
from helium_agents.graph.ref import value_of
from helium_agents.optimizer.optimize import Cut, Join, PhysicalPlan
from helium_agents.runtime.answers import Answers, Found, is_memorable
from helium_agents.runtime.cut_answer import fit_choice
from helium_agents.runtime.dispatch.dispatcher import Dispatcher
from helium_agents.runtime.evaluator import Evaluator
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.flight import Flight, Waiter
from helium_agents.runtime.flights import Flights
from helium_agents.runtime.item import Item
from helium_agents.runtime.known_inputs import with_inputs
from helium_agents.runtime.record import Answer
from helium_agents.runtime.tasks import Tasks
from helium_agents.telemetry.events import (
    Source,
)


class Executor:
    """Runs planned flights.

    Args:
        engines: The session's engines, which cut long answers.
        dispatcher: Told of what is remembered.
        flights: All unfinished flights.
        answers: What is remembered, or `None`.
        tasks: The session's tasks.
        evaluator: Computes what is not.
        looks_up: Whether a call whose inputs have come is looked up once more.
        shares: Whether it may join an equal one in flight.
    """

    def __init__(
        self,
        engines: EnginePool,
        dispatcher: Dispatcher,
        flights: Flights,
        answers: Answers | None,
        tasks: Tasks,
        evaluator: Evaluator,
        *,
        looks_up: bool,
        shares: bool,
    ) -> None:
        self._engines = engines
        self._dispatcher = dispatcher
        self._flights = flights
        self._answers = answers
        self._tasks = tasks
        self._looks_up = looks_up
        self._shares = shares
        self._evaluate = evaluator.evaluate

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
            self._run(flight, self._evaluate(flight, asked, node))

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
            self._run(flight, self._evaluate(flight, asked, node))
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


def _may_pass(outcome: Outcome) -> bool:
    return isinstance(outcome, Failure) and isinstance(outcome.error, TransientEngineError)
