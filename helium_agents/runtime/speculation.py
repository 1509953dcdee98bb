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
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from helium_agents.engines.engine import Completion, Delta, OnDelta, Request
from helium_agents.graph.inline import run_body
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Outcome, Value
from helium_agents.graph.trace import Models, Tally
from helium_agents.optimizer.closed_values import forced_value
from helium_agents.optimizer.guesses import Guess
from helium_agents.runtime.answers import Answers
from helium_agents.runtime.dispatcher import Dispatcher, Early
from helium_agents.runtime.early_answers import EarlyAnswer, EarlyAnswers
from helium_agents.runtime.engine_pool import EnginePool
from helium_agents.runtime.flight import Flight
from helium_agents.runtime.flights import Flights
from helium_agents.runtime.guess_notes import guessed, note_tried, note_why, note_worth
from helium_agents.runtime.learned_guesses import (
    LearnedGuesses,
    can_be_learned,
    closed_guess,
    has_closed_part,
)
from helium_agents.runtime.predicted import Predicted, by_user, is_right, of_answer
from helium_agents.runtime.record import Answer
from helium_agents.runtime.shadow import Shadow
from helium_agents.runtime.stakes import Stakes
from helium_agents.runtime.tasks import Tasks
from helium_agents.runtime.trial import Body, Trial
from helium_agents.telemetry.events import Observer, Speculated, WhyNoGuess

T = TypeVar("T")

_MOST_TRIALS = 16
"""So many at once in a body: guesses on top of guesses are soon too many to look at."""

_SURE = 0.97
"""Of what the beginning of an answer says about the rest of its closed part."""


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
        self.bodies: dict[Node, Body] = {}
        self._engines = engines
        self._flights = flights
        self._answers = answers
        self._tasks = tasks
        self._stakes = stakes
        self._learned = learned
        self._emit = emit
        self._is_watched = is_watched
        self._early = EarlyAnswers(engines, dispatcher, tasks, self._is_worth, self._note_dropped)
        self._trials: dict[Shadow, Trial] = {}
        self._endless: set[str] = set()  # operators whose bodies cannot be ended

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
            del self.bodies[origin]
            while body.trials:
                self._end(body.trials[-1])
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
        early = self._early.claim(node)
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
        for body in self._bodies_of(flight):
            until_s = self._stakes.expect(body, node, request)
            if request is not None:
                body.prompt = tuple(request.prompt_token_ids)
            site = self._stakes.site(body, node)
            self._guess(body, node, site, until_s, None)
            if request is not None and isinstance(node, LlmNode) and has_closed_part(node):
                _listen(request, partial(self._heard, body, node, site, until_s))
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

    # --- guessing ------------------------------------------------------------------------------

    def _guess(
        self, body: Body, node: Node, site: str, until_s: float, above: Trial | None
    ) -> None:
        """Try what is guessed of a call."""
        why = self._why_none(body, node, site)
        if why or node.key is None:
            if above is None:
                note_why(body, node, why)
            return
        with _told_if_it_fails(node):
            if isinstance(node, LlmNode) and isinstance(node.call.predict, str):
                self._ask_smaller(body, node, node.call.predict, site, until_s, above)
                return
            found = self._predictions(body, node, site, above)
            if above is None and found:
                body.guessed[node.key] = found
            elif above is None:
                note_why(body, node, self._why_unsaid(node))
            for predicted in found:
                self._try(body, node, site, until_s, predicted, above)

    def _why_none(self, body: Body, node: Node, site: str) -> WhyNoGuess:
        if node.key is None:
            return "not shared"
        if body.node.body.identity in self._endless:
            return "never alike"
        return self._stakes.why_none(node, site)

    def _why_unsaid(self, node: Node) -> WhyNoGuess:
        assert isinstance(node, LlmNode | OperatorNode)
        asked = node.call if isinstance(node, LlmNode) else node.body
        if asked.predict is not None:
            return "not said"
        return "nothing seen" if can_be_learned(node) else "nobody"

    def _ask_smaller(
        self, body: Body, node: LlmNode, model: str, site: str, until_s: float, above: Trial | None
    ) -> None:
        """Ask another engine the same, and take for a guess what it says in time."""
        call = replace(node.call, model=model, predict=None)
        early = self._early.ask(LlmNode(body.node.frame, call), body)

        def answered(_: Any) -> None:
            if early.is_there and body in self.bodies.values():
                for predicted in of_answer(node, _outcome(early), f"engine {model}"):
                    self._try(body, node, site, until_s, predicted, above)

        early.ended.add_done_callback(answered)

    def _predictions(
        self, body: Body, node: Node, site: str, above: Trial | None
    ) -> list[Predicted]:
        assert isinstance(node, LlmNode | OperatorNode)
        asked = node.call if isinstance(node, LlmNode) else node.body
        if asked.predict is None:
            return self._learned.of(body, node, site, above)
        return by_user(node)

    def _try(
        self,
        body: Body,
        node: Node,
        site: str,
        until_s: float,
        predicted: Predicted,
        above: Trial | None,
    ) -> None:
        own = chance = self._stakes.chance(site, predicted.guess)
        known: dict[bytes, Outcome] = {}
        if above is not None:
            chance, known = chance * above.shadow.probability, above.shadow.known
        if self._is_tried(body, node, predicted):
            return
        if chance < self._stakes.least_probability or len(body.trials) >= _MOST_TRIALS:
            note_why(body, node, "improbable")
            return
        assert node.key is not None
        shadow = Shadow(self, known | {node.key: predicted.outcome}, chance)
        again = shadow.again(body.node)
        if again.key != body.node.key:  # the body has changed its arguments
            note_why(body, node, "never alike")
            return
        note_tried(body, node, predicted, own)
        trial = Trial(body, node, site, predicted, shadow, until_s, above=above)
        self._trials[shadow] = trial
        body.trials.append(trial)
        shadow.task = self._tasks.spawn(shadow.run(again))

    def _heard(self, body: Body, node: LlmNode, site: str, until_s: float, text: str) -> bool:
        """An answer begins like this; whether no more of it is to be heard."""
        with _told_if_it_fails(node):
            return self._guess_by(body, node, site, until_s, text)
        return True

    def _guess_by(self, body: Body, node: LlmNode, site: str, until_s: float, text: str) -> bool:
        """Try the closed part of an answer, if its beginning tells; whether it does."""
        assert node.call.json_schema is not None
        value = forced_value(node.call.json_schema, text)
        if value is None or body not in self.bodies.values():
            return value is not None
        for predicted in closed_guess(node, Guess(value, _SURE, "prefix")):
            for trial in [*body.trials]:
                is_same = trial.node.key == node.key and trial.above is None
                if is_same and trial.predicted.guess.value != value:
                    self._end(trial)
            self._try(body, node, site, until_s, predicted, None)
        return True

    def _is_tried(self, body: Body, node: Node, predicted: Predicted) -> bool:
        return any(
            trial.node.key == node.key and trial.predicted.guess.value == predicted.guess.value
            for trial in body.trials
        )

    def _end(self, trial: Trial) -> None:
        """Nothing more comes of a trial, and of those on top of it."""
        if self._trials.pop(trial.shadow, None) is None:
            return
        trial.body.trials.remove(trial)
        trial.shadow.end()
        for each in [each for each in trial.body.trials if each.above is trial]:
            self._end(each)
        self._early.leave(trial.shadow)

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
        self._judge(body, node, truth)

    def _tell(self, flight: Flight, node: Node, site: str, body: Body, truth: Value) -> None:
        """Tell what was guessed of a call."""
        if not self._is_watched:
            return
        event = guessed(body, node, flight.node.number, site, truth)
        if event is not None:
            self._emit(event)

    def _judge(self, body: Body, node: Node, truth: Outcome | None) -> None:
        """It is known what a call came to: end the trials that guessed otherwise."""
        for trial in [*body.trials]:
            if trial.node.key != node.key or trial.is_right is not None:
                continue
            trial.is_right = is_right(node, trial.predicted, truth)
            if not trial.is_right:
                self._end(trial)

    # --- what shadows ask ----------------------------------------------------------------------

    @property
    def models(self) -> Models:
        """The session's models."""
        return self._engines

    def calls_others(self, node: OperatorNode) -> None:
        """The body of a pure operator has made a call."""
        self._early.no_leaf(node)

    def cannot_end(self, node: OperatorNode) -> None:
        """The body of a pure operator goes on whenever it is ended."""
        if node.body.identity not in self._endless:
            self._endless.add(node.body.identity)
            warnings.warn(
                f"nothing more is guessed in {node.label}, since it goes on when it is cancelled "
                "(a bare `except:` in a loop, perhaps): let asyncio.CancelledError through, with "
                "`except Exception:`",
                RuntimeWarning,
                stacklevel=2,
            )

    async def answer(self, node: Node, shadow: Shadow) -> Outcome | None:
        """What a call comes to, from wherever it is there first; `None`: the shadow must end."""
        assert node.key is not None
        while (trial := self._trials.get(shadow)) is not None:
            found = self._answers.look_up(node)
            if found is not None:
                return Value(found.value)
            flight = self._flights.under_way.get(node.key)
            if flight is not None and flight.task is not None:
                await asyncio.wait((flight.task,))
                return flight.outcome if isinstance(flight.outcome, Value) else None
            if isinstance(node, OperatorNode) and not self._early.may_be_leaf(node):
                return Value(await run_body(node, None, Tally(), on_begin=shadow.not_timed))
            early = self._begin(node, trial)
            if early is None:
                return None
            await asyncio.wait((early.ended,))
            if early.is_there:
                return _outcome(early)
            if early.error is not None:
                return None
        return None

    def _begin(self, node: Node, trial: Trial) -> EarlyAnswer | None:
        """Want the early answer of a call, which begins if it has not."""
        assert node.key is not None
        early = self._early.find(node.key)
        if early is not None:
            self._early.want(early, trial.shadow)
            return early
        if trial.is_right:  # the body itself is about to ask it
            return None
        if isinstance(node, LlmNode):
            if not self._engines[node.call.model].is_up:  # none is started for a guess
                return None
            early = self._early.ask(node, trial.shadow)
        else:
            assert isinstance(node, OperatorNode)
            early = self._early.run(node, trial.shadow)
        early.stake = trial, None
        site = self._stakes.site(trial.body, node)
        self._guess(trial.body, node, site, self._stakes.expect(trial.body, node, None), trial)
        early.ended.add_done_callback(partial(self._judge_early, trial.body, node, early))
        return early

    def _judge_early(self, body: Body, node: Node, early: EarlyAnswer, _: Any) -> None:
        if early.is_there:
            self._judge(body, node, _outcome(early))

    def _is_worth(self, early: EarlyAnswer, node: LlmNode, request: Request) -> bool:
        """Whether to make a request early."""
        if early.stake is None:  # a smaller engine's, which is there to guess
            return True
        trial: Trial = early.stake[0]
        if trial.shadow.is_over:
            return False
        stake = self._stakes.stake(trial, node, request)
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
        num_tokens = self._stakes.settle(stake, early, saved_s, is_used=is_used)
        if early.sent_s is not None:
            guess = trial.predicted.guess
            self._emit(
                Speculated(
                    early.label, guess.source, guess.probability, is_used, saved_s, num_tokens, call
                )
            )


@contextmanager
def _told_if_it_fails(node: Node) -> Iterator[None]:
    """Tell the event loop of what goes wrong in guessing: the call itself is as it was without."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # nothing in it waits: no cancellation of the call is lost
        message = f"nothing is guessed of {node.label}, since guessing (predict=, perhaps) failed"
        context = {"message": message, "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


def _listen(request: Request, on_text: Callable[[str], bool]) -> None:
    """Have somebody told of an answer as far as it is there, until that says that it is enough."""
    begin = request.on_attempt

    def on_attempt() -> OnDelta:
        hearer, text, is_enough = begin(), "", False

        def on_delta(delta: Delta) -> None:
            nonlocal text, is_enough
            if not is_enough:
                text += delta.text
                is_enough = on_text(text)
            if hearer is not None:
                hearer(delta)

        return on_delta

    request.on_attempt = on_attempt


def _outcome(early: EarlyAnswer) -> Value:
    """What a call came to early, before its own form is made of it."""
    value = early.value
    if isinstance(value, Completion):
        value = Answer(value.choices, value.prompt_tokens, value.output_tokens)
    return Value(value)
