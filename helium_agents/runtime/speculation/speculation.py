"""Speculation: while a call is open, the body that awaits it goes on as if the answer were known.

When a call is asked inside the body of a pure operator, and somebody guesses what it will come to,
a shadow of that body is run. What the shadow asks is computed early, where the budget says that it
is worth it, and is there when the body itself comes to ask it. Nothing else is seen of a shadow:
none of its answers is kept, reported or paid for before the session has asked for it.

A guess that turns out wrong ends its shadow, and with it what was guessed on top of it. All guesses
of a body end with the body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from helium_agents.engines.engine import Completion, Request
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Value
from helium_agents.runtime.answers import Answers
from helium_agents.runtime.dispatch.dispatcher import Dispatcher, Early
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.flight import Flight
from helium_agents.runtime.flights import Flights
from helium_agents.runtime.speculation.early_answer import EarlyAnswer
from helium_agents.runtime.speculation.early_answers import EarlyAnswers
from helium_agents.runtime.speculation.guess_notes import guessed, note_worth
from helium_agents.runtime.speculation.guesser import Guesser
from helium_agents.runtime.speculation.learned_guesses import (
    LearnedGuesses,
)
from helium_agents.runtime.speculation.predicted import is_right
from helium_agents.runtime.speculation.stakes import Stakes
from helium_agents.runtime.speculation.trial import Body, Trial
from helium_agents.runtime.tasks import Tasks
from helium_agents.telemetry.events import Observer, Speculated

T = TypeVar("T")


class Speculation:
    """A session's guesses.

    Args:
        engines: The session's engines.
        dispatcher: Takes requests.
        flights: The session's unfinished calls.
        answers: What is remembered.
        tasks: The session's tasks.
        stakes: Says what is worth it.
        learned: Guesses where the user does not.
        emit: Takes events.
        is_watched: Whether anybody wants to know of each guess.

    Attributes:
        bodies: Those that run, by their calls: where there are none, there is nothing to guess.
    """

    def __init__(
        self,
        engines: EnginePool,
        dispatcher: Dispatcher,
        flights: Flights,
        answers: Answers,
        tasks: Tasks,
        stakes: Stakes,
        learned: LearnedGuesses,
        emit: Observer,
        *,
        is_watched: bool,
    ) -> None:
        self._stakes = stakes
        self._learned = learned
        self._emit = emit
        self._is_watched = is_watched
        self._early = EarlyAnswers(engines, dispatcher, tasks, self._is_turn, self._note_dropped)
        made_of = engines, flights, answers, tasks, stakes, learned, self._early
        self._guesser = Guesser(*made_of)
        self.bodies = self._guesser.bodies

    # --- what the session asks -----------------------------------------------------------------

    async def run(self, flight: Flight, node: OperatorNode, work: Callable[[], Awaitable[T]]) -> T:
        """The value of a pure operator: what it came to early, or what running its body gives."""
        early = self._claim(flight, node)
        if early is not None:
            flight.begin()
            if await self._early.taken(early):
                value: T = early.value
                for body in self._bodies_of(flight):
                    self._tell(flight, node, self._stakes.site(body, node), body, Value(value))
                return value
        self._asked(flight, node, None)
        body = Body(node)
        origin = node if node.origin is None else node.origin
        self.bodies[origin] = body
        try:
            return await work()
        finally:
            if self.bodies.get(origin) is body:  # else it was given up, and is run again
                del self.bodies[origin]
            while body.trials:
                self._guesser.end(body.trials[-1])
            self._early.leave(body)

    def ask(self, flight: Flight, node: LlmNode, request: Request) -> Early | None:
        """A model is about to be asked, in its flight's task: guess what it will say.

        Returns:
            What gives its answer, where that is early.
        """
        early = self._claim(flight, node)
        self._asked(flight, node, request)
        return None if early is None else partial(self._completion, early, flight)

    def _claim(self, flight: Flight, node: Node) -> EarlyAnswer | None:
        """The early answer of a call that is about to be computed, there or under way."""
        early = self._early.claim(node, is_streamed=flight.stream is not None)
        if early is not None:
            self._report(early, flight)
        return early

    async def _completion(
        self, early: EarlyAnswer, flight: Flight, request: Request
    ) -> Completion | None:
        flight.begin_attempt()
        flight.doing = "waits for its answer, which was asked before it was"
        if early.request is not None:
            early.request.item, early.request.describe = request.item, request.describe
        return early.value if await self._early.taken(early) else None

    def _asked(self, flight: Flight, node: Node, request: Request | None) -> None:
        """A call is about to be computed, in its flight's task: guess what it will come to."""
        assert flight.task is not None
        bodies = self._bodies_of(flight)
        if isinstance(node, LlmNode):
            self._stakes.outside.begin(node.call.model, flight.task, is_inside=bool(bodies))
        for body in bodies:
            until_s = self._stakes.expect(body, node, request)
            if request is not None:
                body.prompt = tuple(request.prompt_token_ids)
            site = self._stakes.site(body, node)
            self._guesser.guess(body, node, site, until_s, None)
            if request is not None and isinstance(node, LlmNode):
                self._guesser.hear(request, body, node, site, until_s)
            flight.task.add_done_callback(partial(self._learn, flight, node, site, body))

    def _bodies_of(self, flight: Flight) -> list[Body]:
        """The bodies that await a flight."""
        found: dict[Body, None] = {}
        for waiter in flight.waiters:
            node = None if waiter.frame is None else waiter.frame.node
            body = None if node is None else self.bodies.get(node)
            if body is not None:
                found[body] = None
        return [*found]

    # --- the truth -----------------------------------------------------------------------------

    def _learn(
        self, flight: Flight, node: Node, site: str, body: Body, _: asyncio.Task[None]
    ) -> None:
        """A call of the session has ended."""
        truth = flight.outcome
        self._stakes.learn(node, site, flight.usage, truth)
        self._learned.learn(body, node, site, truth)
        for predicted in body.guessed.pop(node.key or b"", ()):
            if isinstance(truth, Value):
                self._stakes.note(site, predicted.guess, is_right(node, predicted, truth))
        if isinstance(truth, Value):
            self._tell(flight, node, site, body, truth)
        self._guesser.judge(body, node, truth)

    def _tell(self, flight: Flight, node: Node, site: str, body: Body, truth: Value) -> None:
        """Tell what was guessed of a call."""
        if not self._is_watched:
            return
        event = guessed(body, node, flight.node.number, site, truth)
        if event is not None:
            self._emit(event)

    async def _is_turn(self, early: EarlyAnswer, node: LlmNode, request: Request) -> bool:
        """Wait until a request may be made early; whether it is worth it."""
        if early.stake is None:  # a smaller engine's, which is there to guess
            return True
        trial: Trial = early.stake[0]
        if trial.shadow.is_over:
            return False
        stake = await self._stakes.stake(trial, node, request)
        early.stake = trial, stake
        note_worth(trial.body, trial.root.node, is_worth=stake is not None)
        return stake is not None

    def _note_dropped(self, early: EarlyAnswer) -> None:
        self._report(early, None)

    def _report(self, early: EarlyAnswer, flight: Flight | None) -> None:
        """An early answer was asked for by a flight, or never will be."""
        if early.stake is None:
            return
        (trial, stake), early.stake = early.stake, None
        is_used, call = flight is not None, 0 if flight is None else flight.node.number
        saved_s = early.seconds if is_used else 0.0
        num_tokens = self._stakes.settle(trial.site, stake, early, saved_s, is_used=is_used)
        if early.sent_s is not None:
            guess = trial.predicted.guess
            self._emit(
                Speculated(
                    early.label, guess.source, guess.probability, is_used, saved_s, num_tokens, call
                )
            )
