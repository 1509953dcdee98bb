"""Guesses of what calls come to, each tried in a shadow of the body that awaits the call.

A guess that turns out wrong ends its shadow, and with it what was guessed on top of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from helium_agents.engines.engine import Delta, OnDelta, Request
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Outcome
from helium_agents.optimizer.closed_values import forced_value
from helium_agents.optimizer.guesses import Guess
from helium_agents.runtime.answers import Answers
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.flights import Flights
from helium_agents.runtime.speculation.early_answer import EarlyAnswer
from helium_agents.runtime.speculation.early_answers import EarlyAnswers
from helium_agents.runtime.speculation.ending import warn_of_endless
from helium_agents.runtime.speculation.guess_notes import note_tried, note_why
from helium_agents.runtime.speculation.learned_guesses import (
    LearnedGuesses,
    can_be_learned,
    closed_guess,
    has_closed_part,
)
from helium_agents.runtime.speculation.predicted import Predicted, by_user, is_right, of_answer
from helium_agents.runtime.speculation.replays import Replays
from helium_agents.runtime.speculation.shadow import Shadow
from helium_agents.runtime.speculation.shadow_world import ShadowWorld
from helium_agents.runtime.speculation.stakes import Stakes
from helium_agents.runtime.speculation.trial import Body, Trial
from helium_agents.runtime.tasks import Tasks
from helium_agents.telemetry.events import WhyNoGuess

_MOST_TRIALS = 16
"""So many at once in a body: guesses on top of guesses are soon too many to look at."""

_SURE = 0.97
"""Of what the beginning of an answer says about the rest of its closed part."""


class Guesser:
    """Guesses, and tries what is guessed.

    Args:
        engines: The session's engines.
        flights: The session's unfinished calls.
        answers: What is remembered.
        tasks: The session's tasks.
        stakes: Says what is worth it.
        learned: Guesses where the user does not.
        early: What is computed early.

    Attributes:
        bodies: Those that run, by their calls.
    """

    def __init__(
        self,
        engines: EnginePool,
        flights: Flights,
        answers: Answers,
        tasks: Tasks,
        stakes: Stakes,
        learned: LearnedGuesses,
        early: EarlyAnswers,
    ) -> None:
        self.bodies: dict[Node, Body] = {}
        self._tasks = tasks
        self._stakes = stakes
        self._learned = learned
        self._early = early
        self._replays = replays = Replays()
        self._trials: dict[Shadow, Trial] = {}
        self._endless: set[str] = set()  # operators whose bodies cannot be ended
        seen = engines, flights, answers, early, self._trials, replays
        self._world = ShadowWorld(*seen, self._guess_above, self._cannot_end)

    def guess(self, body: Body, node: Node, site: str, until_s: float, above: Trial | None) -> None:
        """Try what is guessed of a call."""
        why = self._why_none(body, node, site)
        if why or node.key is None:
            if above is None:
                note_why(body, node, why)
            return
        with _told_if_it_fails(node):
            if isinstance(node, LlmNode) and isinstance(node.call.predict, str):
                if self._early.may_ask(node.call.predict):
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
                for predicted in of_answer(node, early.outcome, f"engine {model}"):
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
            chance, known = chance * self._stakes.chance_of(above), above.shadow.known
        if self._is_tried(body, node, predicted):
            return
        num_open = sum(trial.is_right is None for trial in body.trials)
        if chance < self._stakes.least_probability or num_open >= _MOST_TRIALS:
            note_why(body, node, "improbable")
            return
        if not self._replays.may_go_on:
            note_why(body, node, "long body")
            return
        assert node.key is not None
        shadow = Shadow(self._world, known | {node.key: predicted.outcome})
        again = shadow.again(body.node)
        if again.key != body.node.key:  # the body has changed its arguments
            note_why(body, node, "never alike")
            return
        note_tried(body, node, predicted, own)
        trial = Trial(body, node, site, predicted, shadow, until_s, above=above)
        self._trials[shadow] = trial
        body.trials.append(trial)
        shadow.task = self._tasks.spawn(shadow.run(again))

    def hear(self, request: Request, body: Body, node: LlmNode, site: str, until_s: float) -> None:
        """Guess by how an answer begins, where it has a closed part."""
        if has_closed_part(node):
            _listen(request, partial(self._heard, body, node, site, until_s))

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
                    self.end(trial)
            self._try(body, node, site, until_s, predicted, None)
        return True

    def _is_tried(self, body: Body, node: Node, predicted: Predicted) -> bool:
        return any(
            trial.node.key == node.key and trial.predicted.guess.value == predicted.guess.value
            for trial in body.trials
        )

    def end(self, trial: Trial) -> None:
        """Nothing more comes of a trial, and of those on top of it."""
        if self._trials.pop(trial.shadow, None) is None:
            return
        trial.body.trials.remove(trial)
        trial.shadow.end()
        for each in [each for each in trial.body.trials if each.above is trial]:
            self.end(each)
        self._early.leave(trial.shadow)

    def judge(self, body: Body, node: Node, truth: Outcome | None) -> None:
        """It is known what a call came to: end the trials that guessed otherwise."""
        for trial in [*body.trials]:
            if trial.node.key != node.key or trial.is_right is not None:
                continue
            trial.is_right = is_right(node, trial.predicted, truth)
            if not trial.is_right:
                self.end(trial)

    def _guess_above(self, early: EarlyAnswer, node: Node, trial: Trial) -> None:
        """A call of a trial is computed early: guess what it comes to, until that is known."""
        body = trial.body
        until_s = self._stakes.expect(body, node, None)
        self.guess(body, node, self._stakes.site(body, node), until_s, trial)

        def ended(_: Any) -> None:
            if early.is_there:
                self.judge(body, node, early.outcome)

        early.ended.add_done_callback(ended)

    def _cannot_end(self, node: OperatorNode) -> None:
        """The body of a pure operator goes on whenever it is ended."""
        if node.body.identity not in self._endless:
            self._endless.add(node.body.identity)
            warn_of_endless(f"nothing more is guessed in {node.label}")


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
