"""What a call is guessed to come to: as its outcome, and whether it came to that."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from helium_agents.engines.engine import Choice, WrittenCall
from helium_agents.errors import EncodingError
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Outcome, Value
from helium_agents.graph.reply import Reply
from helium_agents.graph.tool_call import ToolCall
from helium_agents.graph.trace import Frame, entered
from helium_agents.keys.encoding import digest, encode_result, freeze
from helium_agents.optimizer.closed_values import closed_value
from helium_agents.optimizer.guesses import Guess
from helium_agents.runtime.fleet.fleet import chat_of
from helium_agents.runtime.record import Answer
from helium_agents.runtime.settle import delivered

_LIKELY = 0.7
"""Of a guess of which nobody says how sure it is, before the truth is seen."""


class Predicted(NamedTuple):
    """A guess, and the outcome that it stands for, before the call's own form is made of it."""

    guess: Guess
    outcome: Value


def by_user(node: Node) -> list[Predicted]:
    """What the function given as `predict=` says.

    Raises:
        BaseException: What it raises, or what it gives is nothing that the call can come to.
    """
    with entered(Frame(None)):  # what it asks is not the program's
        if isinstance(node, LlmNode):
            assert callable(node.call.predict)
            found = node.call.predict(chat_of(node.call))
        else:
            assert isinstance(node, OperatorNode) and node.body.predict is not None
            args, kwargs = freeze(node.args), freeze(node.kwargs)  # which it may change
            found = node.body.predict(*args, **kwargs)
    pairs = found if _are_pairs(found) else [(found, _LIKELY)]
    return [
        _predicted(node, value, probability, "predict")
        for value, probability in pairs
        if value is not None
    ]


def of_answer(
    node: LlmNode, answer: Value, source: str, probability: float = _LIKELY
) -> list[Predicted]:
    """A model's answer as a guess of a call; none where the call cannot come to it."""
    if not isinstance(delivered(node, answer), Value):
        return []
    return [Predicted(Guess(_text(answer.value), probability, source), answer)]


def is_right(node: Node, predicted: Predicted, truth: Outcome | None) -> bool:
    """Whether a call came to what was guessed, as far as its own form of it tells."""
    if not isinstance(truth, Value):
        return False
    guess, guessed = predicted
    if not isinstance(node, LlmNode):
        return encode_result(guessed.value) == encode_result(truth.value)
    theirs = truth.value.choices[0]
    if not guessed.value.choices:  # a part of an answer is guessed
        assert node.call.json_schema is not None
        return closed_value(node.call.json_schema, theirs.text) == guess.value
    return bool(_said(node, guessed.value.choices[0]) == _said(node, theirs))


def _are_pairs(found: Any) -> bool:
    return isinstance(found, list) and all(
        isinstance(each, tuple) and len(each) == 2 and isinstance(each[1], int | float)
        for each in found
    )


def _predicted(node: Node, value: Any, probability: float, source: str) -> Predicted:
    if not 0 <= probability <= 1:
        raise ValueError(f"predict= gave the probability {probability!r}: it is from 0 to 1")
    if isinstance(node, LlmNode):
        answer = _as_answer(node, value)
        delivered(node, Value(answer)).get()  # raises where the call cannot come to it
        return Predicted(Guess(_text(answer), probability, source), Value(answer))
    try:
        text = digest(encode_result(value)).hex()
    except EncodingError as error:
        raise EncodingError(
            f"predict= of {node.label} gave what it cannot return: {error}"
        ) from error
    return Predicted(Guess(text, probability, source), Value(value))


def _as_answer(node: LlmNode, value: Any) -> Answer:
    if isinstance(value, Reply):
        return Answer.of(value.choices, 0)
    if node.call.schema is not None:
        return _answer(Choice(to_json(value).decode(), (), "stop"))
    if isinstance(value, str):
        return _answer(Choice(value, (), "stop"))
    calls = [value] if isinstance(value, ToolCall) else value
    if node.call.tools is None or not all(isinstance(call, ToolCall) for call in calls):
        raise TypeError(
            f"predict= of {node.label} gave {value!r}: give a text, with schema= a value of it, "
            f"with tools= a ToolCall or a list of them"
        )
    written = tuple([WrittenCall(call.name, call.text) for call in calls])
    return _answer(Choice("", (), "stop", tool_calls=written))


def _text(answer: Answer) -> str:
    choice = answer.choices[0]
    return to_json(choice.tool_calls).decode() if choice.tool_calls else choice.text


def _answer(choice: Choice) -> Answer:
    return Answer.of((choice,), 0)


def _said(node: LlmNode, choice: Choice) -> Any:
    """What of an answer a program sees."""
    if choice.tool_calls:
        return [(name, _json(arguments)) for name, arguments in choice.tool_calls]
    return _json(choice.text) if node.call.schema is not None else choice.text


def _json(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return text
