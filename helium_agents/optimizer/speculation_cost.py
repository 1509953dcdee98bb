"""What a guessed call wins and what it costs, in seconds, from what a step of its engine costs."""

from __future__ import annotations

from dataclasses import dataclass
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


class Outlook(NamedTuple):
    """What comes of a guess.

    Args:
        saved_s: By how much earlier its answer is there if it is right.
        cost_s: What it takes from demanded calls if it is wrong: the sum over them.
        tokens: What the engine computes for nothing if it is wrong.
        early_s: What it takes from demanded calls of others now, instead of later, if it is right.
    """

    saved_s: float
    cost_s: float
    tokens: float
    early_s: float = 0.0


def outlook(
    cost: StepCost,
    call: GuessedCall,
    window_s: float,
    num_demanded: int,
    num_own: int = 0,
    context_tokens: int = 0,
) -> Outlook:
    """What a guess wins and costs.

    An engine that is idle until the truth is known can use all of that time for it. One that works
    for others lends it the fixed part of its steps, and the guess makes each of these longer for
    all of them. When the truth comes and it was wrong, it is taken away.

    Args:
        cost: Of a step of the engine.
        call: What would be asked.
        window_s: How long it takes until the truth is known.
        num_demanded: Demanded requests that the engine has, or will have in that time.
        num_own: Of these, those that are waited for by whoever wins by the guess.
        context_tokens: Tokens that these attend to, of all together.
    """
    new_tokens = max(1, call.prompt_tokens - call.cached_tokens)
    prefill_s = cost.prefill_seconds(new_tokens, call.cached_tokens)
    decode_s = cost.decode_s + cost.context_s * (call.prompt_tokens + call.output_tokens / 2)
    others_s = cost.decode_s * num_demanded + cost.context_s * context_tokens
    step_s = cost.step_s + decode_s + others_s
    num_steps = min(call.output_tokens, 1 + max(0.0, window_s - prefill_s - step_s) / step_s)
    if num_demanded:
        saved_s = num_steps * cost.step_s
    else:
        saved_s = min(window_s, cost.step_s + prefill_s + (call.output_tokens - 1) * step_s)
    evicted_s = cost.prefill_seconds(call.evicted_tokens)
    slower_s = prefill_s + num_steps * decode_s
    cost_s = num_demanded * slower_s + evicted_s
    if window_s <= 0:
        return Outlook(0.0, cost_s, float(new_tokens))
    early_s = max(0, num_demanded - num_own) * slower_s + evicted_s
    return Outlook(saved_s, cost_s, new_tokens + num_steps, early_s)


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
    new_tokens = max(1, call.prompt_tokens - call.cached_tokens)
    context = context_tokens + call.prompt_tokens + call.output_tokens / 2
    step_s = cost.seconds(Step(num_running + 1, round(context)))
    prefill_s = cost.prefill_seconds(new_tokens, call.cached_tokens)
    return cost.request_s + prefill_s + call.output_tokens * step_s + cost.reply_s
