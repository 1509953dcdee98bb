"""The default schedule: everything open, unless another is seen or predicted to be faster."""

from __future__ import annotations

from helium_agents.optimizer.park import Park
from helium_agents.optimizer.policy import AllOpen, Policy
from helium_agents.optimizer.schedule import Asked, EverythingOpen, Gated, Queue, Schedule

_LEAST_PAUSE_SHARE = 0.025
_LEAST_GAIN = 1.1
"""Of `Park.gain`, to begin with it; it ends below 1."""


class Adaptive:
    """Everything open, a policy predicted to be faster, or `Park` where agents do not fit.

    Where the calls of rows are known, policies can be simulated; who does so says which to
    `follow`. Agents that pause cannot: of them it is seen that they go on where they ended, that
    they are away from the engine for a twentieth of their time, that their turns to come will not
    fit into the KV cache together, and that more turns a second are taken if some wait than if each
    computes anew what it has lost. To wait until they have lost it is late: by then all of them are
    computed anew. Rows that never pause are better off with full batches. When they pause no more,
    or waiting brings nothing any more, everything is open again.
    """

    def __init__(self) -> None:
        self._park = Park()
        self._planned: Schedule = EverythingOpen()
        self._parked: set[Queue] = set()  # those whose agents it parks

    def follow(self, policy: Policy) -> None:
        """Open rows as a policy says, while it does not park."""
        self._planned = EverythingOpen() if isinstance(policy, AllOpen) else Gated(policy)

    def keeps_prefixes(self, queue: Queue) -> bool:
        """While it parks."""
        return queue in self._parked

    def choose(self, queue: Queue) -> Asked | None:
        """As the one does whose time it is."""
        parks = self._parks(queue)
        (self._parked.add if parks else self._parked.discard)(queue)
        return (self._park if parks else self._planned).choose(queue)

    def look_again_s(self, queue: Queue) -> float | None:
        """As the one does whose time it is."""
        return (self._park if queue in self._parked else self._planned).look_again_s(queue)

    def _parks(self, queue: Queue) -> bool:
        """Whether to park from now on."""
        turn = queue.usual_turn if queue.items else None
        if turn is None:  # nothing is seen yet
            return False
        if queue in self._parked:
            return turn.pause_share >= _LEAST_PAUSE_SHARE and self._park.gain(queue) >= 1.0
        if turn.pause_share <= 2 * _LEAST_PAUSE_SHARE:
            return False
        return self._park.is_full(queue) and self._park.gain(queue) >= _LEAST_GAIN
