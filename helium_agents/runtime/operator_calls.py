"""The operator calls that events name, one object for each however often it is named."""

from __future__ import annotations

from helium_agents.graph.node import OperatorNode
from helium_agents.graph.trace import Frame
from helium_agents.telemetry.events import OperatorCall


def operator_call(node: OperatorNode) -> OperatorCall:
    """What events call an operator call, and those around it."""
    new = []
    inner: OperatorNode | None = node
    while inner is not None and inner.told_as is None:
        new.append(inner)
        inner = inner.frame.node
    found: OperatorCall | None = None if inner is None else inner.told_as
    for call in reversed(new):
        found = call.told_as = OperatorCall(call.number, call.body.identity, found)
    assert found is not None
    return found


def operator_around(frame: Frame) -> OperatorCall | None:
    """The operator call whose body a frame is in; `None` outside of any."""
    node = frame.node
    return None if node is None else operator_call(node)
