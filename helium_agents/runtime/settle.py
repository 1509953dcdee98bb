"""Settling: each call that a landed flight answers gets a form of the outcome that is its own.

A result is copied, a reply is judged by the call's own schema, a failure becomes another exception
object for each who asks.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from helium_agents.engines.engine import Choice
from helium_agents.graph.describe import describe
from helium_agents.graph.freeze import freeze
from helium_agents.graph.node import LlmNode, Node
from helium_agents.graph.outcome import Failure, Outcome, Value
from helium_agents.graph.reply import Reply
from helium_agents.graph.reply_schema import parse_reply
from helium_agents.runtime.flights import Flight
from helium_agents.runtime.record import Answer
from helium_agents.telemetry.events import CallSettled, Observer


class Settler:
    """Gives the calls of a landed flight their outcomes.

    Args:
        emit: Takes events.
    """

    def __init__(self, emit: Observer) -> None:
        self._emit = emit

    def settle(self, flight: Flight, outcome: Outcome) -> None:
        """Settle the flight's calls, each with a form of the outcome that is its own."""
        end_s = asyncio.get_running_loop().time()
        answer = outcome.value if isinstance(outcome, Value) else None
        usage = answer if isinstance(answer, Answer) else None
        for node, source in flight.nodes:
            if node.outcome is not None or node.flight not in (flight, None):
                continue  # was left, and then asked again: that is another computation
            delivered = _deliver(node, outcome)
            node.settle(delivered)
            if not node.is_planned:
                continue
            is_llm = isinstance(node, LlmNode)
            error = delivered.error if isinstance(delivered, Failure) else None
            if is_llm and isinstance(node, LlmNode) and node.draws_again:
                if error is None:
                    continue  # its draws were counted
                num_calls = 0
            else:
                num_calls = 1 if is_llm else flight.calls_below
            if node.frame.tally is not None:
                node.frame.tally.num_calls += num_calls
            self._emit(
                CallSettled(
                    kind="llm" if is_llm else "operator",
                    label=node.label,
                    source="body" if source == "engine" and not is_llm else source,
                    prompt_tokens=usage.prompt_tokens if usage else 0,
                    cached_tokens=flight.cached_tokens if source == "engine" else 0,
                    output_tokens=usage.output_tokens if usage else 0,
                    error=error,
                    start_s=flight.start_s,
                    end_s=end_s,
                    calls_below=0 if is_llm else num_calls,
                )
            )
        if flight.stream is not None:
            text = answer.choices[0].text if isinstance(answer, Answer | Reply) else None
            flight.stream.close(text)


def _deliver(node: Node, outcome: Outcome) -> Outcome:
    """The outcome of one call: its own copy of what is shared."""
    if isinstance(outcome, Failure):
        return outcome
    try:
        if not isinstance(node, LlmNode):
            return Value(freeze(outcome.value))
        answer = outcome.value
        if isinstance(answer, Reply):
            return outcome
        return Value(Reply(answer.choices, parse_choices(node, answer.choices)))
    except BaseException as error:  # it does not fit, or a validator of the schema failed
        return Failure(error)


def parse_choices(node: LlmNode, choices: tuple[Choice, ...]) -> tuple[Any, ...]:
    """The values of a reply's answers by the call's own schema; none without one.

    Raises:
        InvalidReply: An answer does not fit.
    """
    call = node.call
    return parse_reply(call.schema, choices, call.sampling.max_tokens, partial(describe, node))
