"""helium_agents without one of the mechanisms that schedule: what each of them brings."""

from __future__ import annotations

from benchmarks.systems.ours import Ours
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.policy import Policy
from helium_agents.optimizer.schedule import Asked, Queue


class Unplanned(Adaptive):
    """Has all rows open, whatever is predicted of others."""

    def follow(self, policy: Policy) -> None:
        """Goes on as before."""


class NeverParks(Adaptive):
    """Sends turns of agents as rows are opened, whatever they lose."""

    def choose(self, queue: Queue) -> Asked | None:
        """As it is planned."""
        return self._planned.choose(queue)

    def look_again_s(self, queue: Queue) -> float | None:
        """As it is planned."""
        return self._planned.look_again_s(queue)


class KeepsEnded(Adaptive):
    """Does not tell the engine that an agent has ended, whose cache nobody will use again."""

    def keeps_prefixes(self, queue: Queue) -> bool:
        """Not that it says so."""
        return False


SYSTEMS = (
    Ours("ours-without-planner", schedule=Unplanned),
    Ours("ours-without-park", schedule=NeverParks),
    Ours("ours-without-ended-hints", schedule=KeepsEnded),
    Ours("ours-without-hints", hints=False),
    Ours("ours-without-speculation", speculates=False),
)
