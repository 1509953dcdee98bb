"""Stakes: what an early call may win and cost, from what is seen of the calls of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import prod

from xxhash import xxh3_64_hexdigest

from helium_agents.engines.engine import Request
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Outcome, Value
from helium_agents.optimizer.guesses import Guess
from helium_agents.optimizer.speculation_budget import Budget, BudgetState, Stake
from helium_agents.optimizer.speculation_cost import (
    GuessedCall,
    Load,
    Outlook,
    outlook,
    prompt_seconds,
    request_seconds,
)
from helium_agents.runtime.dispatch.dispatcher import Dispatcher
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.speculation.early_answer import EarlyAnswer
from helium_agents.runtime.speculation.outside_calls import OutsideCalls
from helium_agents.runtime.speculation.trial import Body, Trial
from helium_agents.telemetry.events import Usage, WhyNoGuess

_TOOL_S = 0.2
"""What an operator takes of which none has ended yet."""

_BLIND_S = 1.0
"""What is won where nobody knows what a step costs: a user who gave a budget takes the chance."""

_MOST_ROLES = 64
"""An agent has few; of system messages with the document in them none tells of the next."""

_BLOCK_TOKENS = 16
_NEWEST = 0.2
"""Weight of the newest of what is averaged."""


class Stakes:
    """A session's budget, and what it needs to know.

    Args:
        budget: What is allowed.
        engines: The session's engines.
        dispatcher: Knows what they have to do.
        is_cautious: Whether to guess nothing where nobody knows what a step of the engine costs.
    """

    def __init__(
        self, budget: Budget, engines: EnginePool, dispatcher: Dispatcher, *, is_cautious: bool
    ) -> None:
        self.least_probability = budget.least_probability
        self._budget = BudgetState(budget)
        self._engines = engines
        self._dispatcher = dispatcher
        self._is_cautious = is_cautious
        self.outside = OutsideCalls(dispatcher)
        self._roles: dict[str, set[str]] = {}  # by place: the system messages seen there
        self._output_tokens: dict[str, float] = {}  # by site
        self._cached_tokens: dict[str, float] = {}  # by site: of prompts, the fewest lately
        self._seconds: dict[str, float] = {}  # of operators, by site
        self._new_tokens = self._answer_tokens = 0.0  # of all calls, on average

    # --- what is known -------------------------------------------------------------------------

    def site(self, body: Body, node: Node) -> str:
        """What calls have in common of which one tells about another."""
        caller = body.node.body.identity
        if isinstance(node, LlmNode):
            call = node.call
            asked = repr((call.model, call.json_schema, call.tools and call.tools.schemas))
            if call.messages[0][0] == "system":
                asked += self._role(f"{caller} {asked}", repr(call.messages[0]))
            return f"{caller} llm {xxh3_64_hexdigest(asked.encode())}"
        assert isinstance(node, OperatorNode)
        return f"{caller} {node.body.identity}"

    def _role(self, place: str, text: str) -> str:
        """What a system message tells of a call; nothing where each row has one of its own."""
        roles = self._roles.setdefault(place, set())
        role = xxh3_64_hexdigest(text.encode())
        if role not in roles and len(roles) < _MOST_ROLES:
            roles.add(role)
        return role if role in roles else ""

    def expect(self, body: Body, node: Node, request: Request | None) -> float:
        """When a call that begins now will have ended, by the event loop's clock."""
        now_s = asyncio.get_running_loop().time()
        site = self.site(body, node)
        if not isinstance(node, LlmNode):
            return now_s + self._seconds.get(site, _TOOL_S)
        cost = self._engines[node.call.model].cost
        if cost is None:
            return now_s + _BLIND_S
        prompt = body.prompt if request is None else request.prompt_token_ids
        call = self._call(node, site, prompt, [body.prompt])
        num_running = self._dispatcher.num_demanded(node.call.model)
        if request is not None:
            body.turn_s = now_s + prompt_seconds(cost, call, num_running)
        return now_s + request_seconds(cost, call, num_running)

    def learn(self, node: Node, site: str, usage: Usage, outcome: Outcome | None) -> None:
        """A call has ended."""
        if not isinstance(outcome, Value):
            return
        if isinstance(node, LlmNode):
            new_tokens = usage.prompt_tokens - usage.cached_tokens
            self._budget.demanded(new_tokens + usage.output_tokens)
            self._new_tokens += _NEWEST * (new_tokens - self._new_tokens)
            self._answer_tokens += _NEWEST * (usage.output_tokens - self._answer_tokens)
            _average(self._output_tokens, site, usage.output_tokens)
            _average(self._cached_tokens, site, usage.cached_tokens, falls_at_once=True)
        elif usage.end_s is not None:
            _average(self._seconds, site, usage.end_s - usage.asked_s)

    def note(self, site: str, guess: Guess, is_right: bool) -> None:
        """The truth of a guess is known."""
        self._budget.note(site, guess, is_right)

    # --- what is worth it ----------------------------------------------------------------------

    def why_none(self, node: Node, site: str) -> WhyNoGuess:
        """Why nothing may be guessed of a call at all; "" where something may."""
        model = node.call.model if isinstance(node, LlmNode) else None
        if self._is_cautious and self._engines[model].cost is None:
            return "no cost"
        return "off" if self._budget.is_off(site) else ""

    def chance(self, site: str, guess: Guess) -> float:
        """How probable a guess is at least, if what it stands on is right."""
        return self._budget.probability(site, guess)

    def chance_of(self, trial: Trial) -> float:
        """How probable it is at least that a trial is right, and all that it stands on."""
        return prod(
            self.chance(each.site, each.predicted.guess)
            for each in trial.chain
            if each.is_right is None
        )

    def _above(self, trial: Trial) -> float:
        return 1.0 if trial.above is None else self.chance_of(trial.above)

    async def stake(self, trial: Trial, node: LlmNode, request: Request) -> Stake | None:
        """Wait for the time to ask a call early in the shadow of a trial; `None`: not worth it."""
        site, guess, seen = trial.site, trial.predicted.guess, self.outside.seen
        call, model = self._call_in(trial, node, request), node.call.model
        await asyncio.sleep(trial.body.turn_s - asyncio.get_running_loop().time())
        while self._budget.is_better_later(
            site, guess, self._outlook(trial, call, model), seen(model).usual_s, self._above(trial)
        ):
            if not await self.outside.next_end(seen(model).next_end_s):
                break
        if trial.shadow.is_over:
            return None
        self._budget.outside(self.outside.take_seconds())
        return self._budget.worth(
            site, guess, self._outlook(trial, call, model), self._above(trial)
        )

    def _outlook(self, trial: Trial, call: GuessedCall, model: str | None) -> Outlook:
        """What comes of a call that is asked early now."""
        cost = self._engines[model].cost
        if cost is None:
            new_tokens = call.prompt_tokens - call.cached_tokens
            return Outlook(_BLIND_S, 0.0, new_tokens + call.output_tokens)
        load = Load(
            self._dispatcher.num_demanded(model),
            int(isinstance(trial.root.node, LlmNode)),  # it waits for that itself
            self.outside.seen(model),
            self._new_tokens / max(1.0, self._answer_tokens),
        )
        window_s = max(0.0, trial.until_s - asyncio.get_running_loop().time())
        return outlook(cost, call, window_s, load)

    def settle(
        self, site: str, stake: Stake | None, early: EarlyAnswer, saved_s: float, *, is_used: bool
    ) -> int:
        """What has come of an early answer; how many tokens were computed for nothing.

        Args:
            site: Where what made it likely was guessed.
            stake: What was set on it; `None` of an operator, which takes nothing of an engine.
            early: The answer.
            saved_s: By how much earlier it was there.
            is_used: Whether it was asked for.
        """
        if is_used:
            self._budget.used(stake or Stake(site, Outlook(0.0, 0.0, 0.0), 0.0), saved_s)
            return 0
        num_tokens = 0 if early.tokens is None else early.tokens
        if stake is not None:
            if early.tokens is None:  # it was aborted, nobody knows where
                num_tokens = round(stake.outlook.tokens)
            self._budget.wasted(stake, num_tokens)
        return num_tokens

    def _call_in(self, trial: Trial, node: LlmNode, request: Request) -> GuessedCall:
        """What a call is that is asked early."""
        body, prompt = trial.body, request.prompt_token_ids
        before = [body.prompt, *(each.prompt for each in trial.chain)]
        trial.prompt = prompt
        return self._call(node, self.site(body, node), prompt, before)

    def _call(
        self, node: LlmNode, site: str, prompt: Sequence[int], before: Sequence[Sequence[int]]
    ) -> GuessedCall:
        """What a call is that is asked after others."""
        most = node.call.sampling.max_tokens
        shared_tokens = max(_num_shared(each, prompt) for each in before)
        cached_tokens = min(len(prompt), round(self._cached_tokens.get(site, 0.0)))
        return GuessedCall(
            len(prompt),
            max(shared_tokens, cached_tokens),
            min(most, self._output_tokens.get(site, most)),
        )


def _num_shared(one: Sequence[int], two: Sequence[int]) -> int:
    """How many of their first tokens are the same, as far as whole blocks are."""
    shared = 0
    while shared < min(len(one), len(two)):
        end = shared + _BLOCK_TOKENS
        if list(one[shared:end]) != list(two[shared:end]):
            break
        shared = end
    return min(shared, len(one), len(two))


def _average(
    known: dict[str, float], site: str, value: float, *, falls_at_once: bool = False
) -> None:
    before = known.get(site, value)
    known[site] = before + _NEWEST * (value - before)
    if falls_at_once:
        known[site] = min(value, known[site])
