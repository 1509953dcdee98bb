"""What is told of the guesses of a call, once its answer is there."""

from __future__ import annotations

from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.outcome import Value
from helium_agents.runtime.speculation.predicted import Predicted, is_right
from helium_agents.runtime.speculation.trial import Body
from helium_agents.telemetry.events import Guessed, WhyNoGuess


def note_tried(body: Body, node: Node, predicted: Predicted, probability: float) -> None:
    """A guess of a call that a body has open is tried."""
    body.tried.setdefault(_key(node), []).append((predicted, probability))


def note_why(body: Body, node: Node, why: WhyNoGuess) -> None:
    """Nothing comes of a guess of it, unless something came of another."""
    body.why.setdefault(_key(node), why)


def note_worth(body: Body, node: Node, *, is_worth: bool) -> None:
    """What follows from a guess that is tried is computed early, or is not worth it."""
    known = body.why.get(_key(node))
    body.why[_key(node)] = "" if is_worth or known == "" else "not worth it"


def guessed(body: Body, node: Node, call: int, site: str, truth: Value) -> Guessed | None:
    """What is told of a call; `None` of operators of which nobody says what they come to.

    Args:
        body: Which had it open.
        node: The call.
        call: Its number.
        site: Where it is made.
        truth: What it came to.
    """
    assert isinstance(node, LlmNode | OperatorNode)
    tried, why = body.tried.pop(_key(node), []), body.why.pop(_key(node), "")
    predict = node.call.predict if isinstance(node, LlmNode) else node.body.predict
    if isinstance(node, OperatorNode) and predict is None:
        return None
    if not tried:
        why = why or ("nobody" if predict is None else "not said")
        return Guessed(call, site, "", 0.0, None, why)
    right = [each for each in tried if is_right(node, each[0], truth)]
    predicted, probability = max(right or tried, key=lambda each: each[1])
    if why not in ("", "not worth it"):  # it holds of others than those that were tried
        why = ""
    return Guessed(call, site, predicted.guess.source, probability, bool(right), why)


def _key(node: Node) -> bytes:
    return node.key or b""
