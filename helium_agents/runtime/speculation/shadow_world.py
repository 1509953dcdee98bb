"""What shadows ask: a call's answer, from memory, from the session's own call, or early."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from helium_agents.graph.inline import run_body
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.models import Models
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Outcome, Value
from helium_agents.graph.trace import Tally
from helium_agents.runtime.answers import Answers
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.flights import Flights
from helium_agents.runtime.speculation.early_answer import EarlyAnswer
from helium_agents.runtime.speculation.early_answers import EarlyAnswers
from helium_agents.runtime.speculation.replays import Replays
from helium_agents.runtime.speculation.shadow import Shadow
from helium_agents.runtime.speculation.trial import Trial


class ShadowWorld:
    """A session as its shadows see it.

    Args:
        engines: The session's engines.
        flights: The session's unfinished calls.
        answers: What is remembered.
        early: What is computed early.
        trials: Those that go on, by their shadows.
        replays: What they may take of the event loop's time.
        on_early: Called when a call of a trial begins to be computed early.
        cannot_end: Called with a call whose body goes on whenever it is ended.
    """

    def __init__(
        self,
        engines: EnginePool,
        flights: Flights,
        answers: Answers,
        early: EarlyAnswers,
        trials: Mapping[Shadow, Trial],
        replays: Replays,
        on_early: Callable[[EarlyAnswer, Node, Trial], None],
        cannot_end: Callable[[OperatorNode], None],
    ) -> None:
        self._engines = engines
        self._flights = flights
        self._answers = answers
        self._early = early
        self._trials = trials
        self.replays = replays
        self._on_early = on_early
        self.cannot_end = cannot_end

    @property
    def models(self) -> Models:
        """The session's models."""
        return self._engines

    def calls_others(self, node: OperatorNode) -> None:
        """The body of a pure operator has made a call."""
        self._early.no_leaf(node)

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
                return early.outcome
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
            model = node.call.model
            if not (self._engines[model].is_up and self._early.may_ask(model)):
                return None  # none is started for a guess
            early = self._early.ask(node, trial.shadow)
        else:
            assert isinstance(node, OperatorNode)
            if not self._early.may_run(node):
                return None
            early = self._early.run(node, trial.shadow)
        early.stake = trial, None
        self._on_early(early, node, trial)
        return early
