"""What the records of a model call have of the events that tell of it."""

from __future__ import annotations

from typing import Any

from helium_agents.telemetry.events import CallSettled, RequestAnswered
from helium_agents.telemetry.otel.context import Place
from helium_agents.telemetry.otel.records import Answer, Said, Sampled


def answer_of(
    event: CallSettled,
    start_s: float,
    leader: Place | None,
    answered: RequestAnswered | None,
    *,
    is_early: bool,
) -> Answer:
    """How a call came to its answer, without what was said.

    Args:
        event: Tells that it did.
        start_s: When its span began.
        leader: The call whose answer it shares.
        answered: What the engine answered it, if it was asked.
        is_early: Whether it was computed before it was asked for.
    """
    usage = event.usage
    sent_s, first_s = usage.sent_s, usage.first_token_s
    return Answer(
        event.source,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        None if sent_s is None else max(sent_s - start_s, 0.0),
        None if first_s is None or sent_s is None else max(first_s - sent_s, 0.0),
        usage.num_attempts,
        event.calls_below,
        is_early,
        None if leader is None else (leader.trace, leader.span),
        () if answered is None else tuple(answered.finish_reasons),
        None,
    )


def sampled_of(sampling: Any) -> Sampled:
    """How a model is asked, of a `graph.sampling.Sampling`."""
    return Sampled(
        sampling.max_tokens,
        sampling.temperature,
        sampling.top_p,
        sampling.top_k,
        sampling.n,
        sampling.seed,
        sampling.stop,
        sampling.presence_penalty,
        sampling.frequency_penalty,
    )


def said_in(answered: RequestAnswered) -> Said:
    """A conversation and its answers."""
    return Said(
        tuple((role, text) for role, text in answered.messages),
        tuple(answered.texts),
        tuple(tuple((name, arguments) for name, arguments in each) for each in answered.tool_calls),
    )
