"""Settling: each call that a landed flight answers gets a form of the outcome that is its own.

A result is copied, a reply is judged by the call's own schema, a failure becomes another exception
object for each who asks.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Literal

from helium_agents.engines.engine import Choice
from helium_agents.errors import RefCancelled
from helium_agents.graph.llm_node import LlmNode, describe
from helium_agents.graph.node import Node
from helium_agents.graph.outcome import Failure, Outcome, Value
from helium_agents.graph.reply import Reply
from helium_agents.graph.reply_schema import parse_reply
from helium_agents.keys.freeze import freeze
from helium_agents.runtime.answers import Answers
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.flight import Flight
from helium_agents.runtime.operator_calls import operator_around
from helium_agents.runtime.record import Answer
from helium_agents.telemetry.events import BodyEnded, CallSettled, Observer, Source


class Settler:
    """Gives the calls of a landed flight their outcomes."""

    def __init__(self, emit: Observer, engines: EnginePool, answers: Answers | None) -> None:
        self._emit = emit
        self._engines = engines
        self._answers = answers

    def settle(self, flight: Flight, outcome: Outcome) -> None:
        """Settle the flight's calls, each with a form of the outcome that is its own."""
        flight.usage.end_s = asyncio.get_running_loop().time()
        if isinstance(outcome, Value) and isinstance(outcome.value, Answer):
            flight.usage.prompt_tokens = outcome.value.prompt_tokens
            flight.usage.output_tokens = outcome.value.output_tokens
        for node, source in flight.nodes:
            if node.outcome is not None or node.flight not in (flight, None):
                continue  # was left, and then asked again: that is another computation
            own = delivered(node, outcome)
            num_spared = self._spare_inputs(node) if node.inputs else 0
            if node.is_planned and not flight.is_left:  # else it was reported then
                self._report(flight, node, source, own, num_spared)
            node.settle(own)
        if flight.stream is not None:
            answer = outcome.value if isinstance(outcome, Value) else None
            text = answer.choices[0].text if isinstance(answer, Answer | Reply) else None
            flight.stream.close(text)

    def report_left(self, flight: Flight) -> None:
        """What was begun, and then left by all who waited for it."""
        flight.usage.end_s = asyncio.get_running_loop().time()
        for node, source in flight.nodes:
            if isinstance(node, LlmNode) and not node.draws_again:
                left = RefCancelled(f"{describe(node)} was left by all who waited for it")
                self._report(flight, node, source, Failure(left), 0)
            elif node.number and source == "engine":
                left = RefCancelled(f"{describe(node)} was left by all who waited for it")
                self._emit(BodyEnded(node.number, left))

    def _report(
        self,
        flight: Flight,
        node: Node,
        source: Source,
        outcome: Outcome,
        num_spared: int,
    ) -> None:
        """Say how a call was settled, and count it for the pure operator around it."""
        kind: Literal["llm", "operator"]
        if isinstance(node, LlmNode):
            if node.draws_again and isinstance(outcome, Value):
                return  # its draws were counted
            kind, num_calls, calls_below = "llm", 1, num_spared
            if node.draws_again:
                calls_below -= 1  # it counts as failed, beside its draws
        else:
            kind, num_calls, calls_below = "operator", 0, flight.calls_below + num_spared
        calls_below -= node.num_spared or 0  # which were counted before
        if node.frame.tally is not None:
            node.frame.tally.num_calls += num_calls + calls_below
        has_run = source == "engine" and kind == "operator"
        if has_run:
            calls_below -= flight.calls_below  # each of them was reported itself
        item, is_watched = node.frame.item, node.number > 0
        model = ""
        if is_watched and isinstance(node, LlmNode):
            model = self._engines[node.call.model].name
        event = CallSettled(
            kind=kind,
            label=node.label,
            source="body" if has_run else source,
            usage=flight.usage,
            error=outcome.error if isinstance(outcome, Failure) else None,
            calls_below=calls_below,
            call=node.number,
            body=operator_around(node.frame) if is_watched else None,
            leader=(flight.leader or flight.node).number,
            item=None if item is None else item.rank,
            model=model,
            inputs=tuple([each.number for each in node.inputs]) if is_watched else (),
        )
        self._emit(event)
        if isinstance(node, LlmNode) and node.on_settled is not None:
            node.on_settled(event)

    def _spare_inputs(self, node: Node) -> int:
        """Note that a call is answered though some of its inputs were never asked.

        Returns how many model calls the plain program would have made for them.
        """
        num_calls = 0
        stack = list(node.inputs)
        while stack:
            source = stack.pop()
            if source.is_asked or source.num_spared is not None:
                continue
            num_spared = 0
            if isinstance(source, LlmNode):
                num_spared = 1
            elif self._answers is not None:
                num_spared = self._answers.calls_below(source)
            source.num_spared = num_spared
            num_calls += num_spared
            stack.extend(source.inputs)
        return num_calls


def delivered(node: Node, outcome: Outcome) -> Outcome:
    """The outcome of one call: its own copy of what is shared."""
    if isinstance(outcome, Failure):
        return outcome
    try:
        if not isinstance(node, LlmNode):
            return Value(freeze(outcome.value))
        answer = outcome.value
        if isinstance(answer, Reply):
            return outcome
        call = node.call
        if call.tools is not None:
            name = partial(describe, node)
            calls = call.tools.read(answer.choices[0], call.beside, name)
            return Value(Reply(answer.choices, tool_calls=calls))
        if call.schema is None:  # nearly always
            return Value(Reply(answer.choices))
        return Value(Reply(answer.choices, parse_choices(node, answer.choices)))
    except BaseException as error:  # it does not fit, or a validator of the schema failed
        return Failure(error)


def parse_choices(node: LlmNode, choices: tuple[Choice, ...]) -> tuple[Any, ...]:
    """The values of a reply's answers by the call's own schema; none without one.

    Raises:
        InvalidReply: An answer does not fit.
    """
    call = node.call
    if call.schema is None:  # nearly always
        return ()
    return parse_reply(call.schema, choices, call.sampling.max_tokens, partial(describe, node))
