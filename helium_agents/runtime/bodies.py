"""Bodies: the operator calls that events name, one object for each however often it is named."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from weakref import WeakKeyDictionary

from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.trace import Frame
from helium_agents.telemetry.events import OperatorCall


class Bodies:
    """The operator calls of a session in whose bodies others are made."""

    def __init__(self) -> None:
        self._bodies: WeakKeyDictionary[Node, OperatorCall] = WeakKeyDictionary()

    def of(self, node: OperatorNode) -> OperatorCall:
        """An operator call itself."""
        body = self._innermost(chain((node,), node.frame.callers()))
        assert body is not None
        return body

    def around(self, frame: Frame) -> OperatorCall | None:
        """The operator call whose body a frame is in; `None` outside of any."""
        return self._innermost(frame.callers())

    def _innermost(self, calls: Iterable[OperatorNode]) -> OperatorCall | None:
        new: list[OperatorNode] = []
        found = None
        for call in calls:
            found = self._bodies.get(call)
            if found is not None:
                break
            new.append(call)
        for call in reversed(new):
            found = OperatorCall(call.number, call.body.identity, found)
            self._bodies[call] = found
        return found
