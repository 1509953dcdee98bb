"""Learned guesses: what calls will come to, as those before them did.

Of a call whose schema leaves few answers open, or few values of some fields, it is counted which of
them came; of a call that may call tools, which tool followed which.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from helium_agents.engines.engine import ChatMessage, Choice, WrittenCall
from helium_agents.errors import InvalidReply
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node
from helium_agents.graph.outcome import Outcome, Value
from helium_agents.graph.reply import Reply
from helium_agents.graph.reply_part import part_of
from helium_agents.optimizer.closed_values import Closed, closed_value, closed_values
from helium_agents.optimizer.guesses import Guess, Histogram, guesses
from helium_agents.optimizer.tool_patterns import ToolPatterns, ToolStep
from helium_agents.runtime.fleet.fleet import chat_of
from helium_agents.runtime.record import Answer
from helium_agents.runtime.speculation.predicted import Predicted, of_answer
from helium_agents.runtime.speculation.trial import Body, Trial

Histograms = Callable[[int], Sequence[Histogram]]
"""What is counted for an item of a map: in this run, and in earlier ones."""


class LearnedGuesses:
    """What a session has learned, and what was learned before.

    Args:
        histograms: Finds what is counted for an item.
    """

    def __init__(self, histograms: Histograms) -> None:
        self._histograms = histograms
        self._seen = Histogram()  # in this session
        self._tools = ToolPatterns()

    def of(self, body: Body, node: Node, site: str, above: Trial | None) -> list[Predicted]:
        """What a call is guessed to come to, the most probable first.

        Args:
            body: In which it is open.
            node: The call, with its inputs' values.
            site: Where it is made.
            above: The trial in whose shadow it is open, if it is.
        """
        if not isinstance(node, LlmNode):
            return []
        if node.call.tools is not None:
            guess = self._tools.guess(site, _seen_last(chat_of(node.call)))
            return [] if guess is None else _tool_call(node, guess)
        closed = _closed(node)
        if closed is None:
            return []
        known = [self._seen, *self._of_item(body)[1:]]
        found = guesses(known, site, closed.values, _previous(body, site, above))
        return [predicted for guess in found for predicted in closed_guess(node, guess)]

    def learn(self, body: Body, node: Node, site: str, outcome: Outcome | None) -> None:
        """A call has ended."""
        if not isinstance(node, LlmNode) or not isinstance(outcome, Value):
            return
        choice: Choice = outcome.value.choices[0]
        if node.call.tools is not None:
            seen = _seen_last(chat_of(node.call))
            one = choice.tool_calls[0] if len(choice.tool_calls) == 1 else WrittenCall("", "")
            self._tools.observe(site, seen, one.name or None, one.arguments)
            return
        closed = _closed(node)
        if closed is None:
            return
        assert node.call.json_schema is not None
        value = closed_value(node.call.json_schema, choice.text)
        for histogram in (self._seen, *self._of_item(body)[:1]):
            histogram.observe(site, closed.values, body.last.get(site), value)
        if value is not None:
            body.last[site] = value

    def _of_item(self, body: Body) -> Sequence[Histogram]:
        item = body.node.frame.item
        return () if item is None else self._histograms(item.rank)


def closed_guess(node: LlmNode, guess: Guess) -> list[Predicted]:
    """A guess of a closed answer; none where the call cannot come to it.

    Where it is a part of the answer, what is not known of it stops whoever reads it.
    """
    closed, schema = _closed(node), node.call.schema
    if closed is None or schema is None:
        return []
    if closed.is_whole:
        answer = Answer.of((Choice(guess.value, (), "stop"),), 0)
        return of_answer(node, Value(answer), guess.source, guess.probability)
    try:
        return [Predicted(guess, Value(Reply((), (part_of(schema.asked, guess.value),))))]
    except InvalidReply:
        return []


def can_be_learned(node: Node) -> bool:
    """Whether what calls like it came to says anything of one."""
    if not isinstance(node, LlmNode):
        return False
    return node.call.tools is not None or _closed(node) is not None


def has_closed_part(node: LlmNode) -> bool:
    """Whether a part of a call's answer is known before all of it is there."""
    closed = _closed(node)
    return closed is not None and not closed.is_whole


def _closed(node: LlmNode) -> Closed | None:
    call = node.call
    if call.json_schema is None or call.sampling.n > 1:
        return None
    return closed_values(call.json_schema)


def _previous(body: Body, site: str, above: Trial | None) -> str | None:
    """The closed answer that came at a site last in a body, or is guessed to have come."""
    while above is not None:
        if above.site == site and isinstance(above.node, LlmNode):
            schema = above.node.call.json_schema
            assert schema is not None
            return closed_value(schema, above.predicted.guess.value)
        above = above.above
    return body.last.get(site)


def _tool_call(node: LlmNode, guess: Guess) -> list[Predicted]:
    call = WrittenCall(**json.loads(guess.value))
    answer = Answer.of((Choice("", (), "stop", tool_calls=(call,)),), 0)
    return of_answer(node, Value(answer), guess.source, guess.probability)


def _seen_last(messages: Sequence[ChatMessage]) -> ToolStep:
    """What a model has seen last: the result of a tool, or what it was asked."""
    last = messages[-1]
    for message in reversed(messages):
        for call in message.tool_calls:
            if call.id == last.tool_call_id:
                return ToolStep(call.name, call.text, last.content)
    return ToolStep("", "", last.content)
