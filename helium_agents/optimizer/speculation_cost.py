"""What a guessed call wins and what it costs, in seconds, from what a step of its engine costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from helium_agents.optimizer.step_cost import Step, StepCost


@dataclass(frozen=True, slots=True)
class GuessedCall:
    """A call that might be asked early.

    Args:
        prompt_tokens: Of its prompt.
        cached_tokens: Of these, what the engine has in its prefix cache.
        output_tokens: Expected of its answer.
        evicted_tokens: Cached tokens of others that give way to it and will be computed again.
    """

    prompt_tokens: int
    cached_tokens: int
    output_tokens: float
    evicted_tokens: int = 0


class Outside(NamedTuple):
    """Requests of a model for which nothing is guessed.

    Args:
        num_now: That it has.
        usual: That it has on average.
        usual_s: How long one takes on average; 0 where none was seen.
    """

    num_now: int = 0
    usual: float = 0.0
    usual_s: float = 0.0

    @property
    def next_end_s(self) -> float:
        """After what time one of them is expected to have ended."""
        return self.usual_s / self.num_now if self.num_now > 0 else 0.0


class Outlook(NamedTuple):
    """What comes of a guess.

    Args:
        saved_s: By how much sooner whoever guesses goes on if it is right.
        cost_s: By how much demanded calls are later if it is wrong: the sum over them.
        tokens: What the engine computes for nothing if it is wrong.
        outside_s: The part of the cost that is paid by calls which win nothing by guesses.
        excess_s: What these pay if it is right, since more of them are there than usual when it is
            computed; less than 0 where there are fewer.
    """

    saved_s: float
    cost_s: float
    tokens: float
    outside_s: float = 0.0
    excess_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What else an engine has to do.

    Args:
        num_demanded: Demanded requests that it has.
        num_own: Of these, those that are waited for by whoever wins by the guess; 0 or 1.
        outside: Those for which nothing is guessed.
        prompt_tokens: That are computed for each token of an answer, on average.
        context_tokens: Tokens that all demanded requests attend to.
    """

    num_demanded: int
    num_own: int = 0
    outside: Outside = field(default_factory=Outside)
    prompt_tokens: float = 0.0
    context_tokens: int = 0


def outlook(cost: StepCost, call: GuessedCall, window_s: float, load: Load) -> Outlook:
    """What a guess wins and costs.

    Steps in which it is computed are longer for all that are in them, and until the truth is known
    it needs none of its own. When that comes and it was wrong, it is taken away. What a right one
    takes from others it would have taken later, from as many as usual; but right after a prompt was
    computed there are more, who have gathered meanwhile and would wait for two prompts.

    In a busy engine others are delayed further, because meanwhile more come, and make each step
    longer. Where such work fills a share u of the steps, a delay is 1 / (1 - u) times as long.

    Args:
        cost: Of a step of the engine.
        call: What would be asked.
        window_s: How long it takes until the truth is known.
        load: What else the engine has to do.
    """
    new_tokens = max(1, call.prompt_tokens - call.cached_tokens)
    prefill_s = _prefill_seconds(cost, call)
    decode_s = cost.decode_s + cost.context_s * (call.prompt_tokens + call.output_tokens / 2)
    work_s = cost.decode_s * load.num_demanded + cost.context_s * load.context_tokens
    step_s = cost.step_s + decode_s + work_s
    num_steps = min(call.output_tokens, 1 + max(0.0, window_s - prefill_s - step_s) / step_s)
    slower_s = prefill_s + num_steps * decode_s
    busy_s = work_s + load.num_demanded * cost.prefill_s * load.prompt_tokens
    longer = 1.0 + busy_s / cost.step_s if cost.step_s else 1.0
    outside = load.outside
    num_outside = max(outside.usual, outside.num_now)
    num_others = max(num_outside, load.num_demanded - load.num_own)
    evicted_s = cost.prefill_seconds(call.evicted_tokens)
    own_s, cost_s = load.num_own * slower_s, longer * num_others * slower_s + evicted_s
    outside_s = longer * num_outside * slower_s
    excess_s = longer * (outside.num_now - outside.usual) * slower_s
    if window_s <= 0:
        return Outlook(0.0, own_s + cost_s, float(new_tokens), outside_s, excess_s)
    saved_s = min(window_s, prefill_s + num_steps * step_s - own_s)
    return Outlook(saved_s, own_s + cost_s, new_tokens + num_steps, outside_s, excess_s)


def request_seconds(
    cost: StepCost, call: GuessedCall, num_running: int, context_tokens: int = 0
) -> float:
    """How long a call takes in a batch with others: when its answer will be there.

    Args:
        cost: Of a step of the engine.
        call: What is asked.
        num_running: Other requests in the batch.
        context_tokens: Tokens that these attend to, of all together.
    """
    context = context_tokens + call.prompt_tokens + call.output_tokens / 2
    step_s = cost.seconds(Step(num_running + 1, round(context)))
    return (
        cost.request_s + _prefill_seconds(cost, call) + call.output_tokens * step_s + cost.reply_s
    )


def prompt_seconds(cost: StepCost, call: GuessedCall, num_running: int) -> float:
    """When what comes next is in no step with a call's prompt: after the step that others are in.

    Args:
        cost: Of a step of the engine.
        call: What is asked.
        num_running: Other requests in the batch.
    """
    begin_s = cost.request_s + (cost.seconds(Step(num_running)) if num_running else 0.0)
    return begin_s + _prefill_seconds(cost, call)


def _prefill_seconds(cost: StepCost, call: GuessedCall) -> float:
    new_tokens = max(1, call.prompt_tokens - call.cached_tokens)
    return cost.prefill_seconds(new_tokens, call.cached_tokens)
