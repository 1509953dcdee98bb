"""A trial: a guess of what an open call comes to, and the run of its body as if it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from helium_agents.graph.node import Node, OperatorNode
from helium_agents.runtime.speculation.predicted import Predicted
from helium_agents.runtime.speculation.shadow import Shadow
from helium_agents.telemetry.events import WhyNoGuess


@dataclass(eq=False, slots=True)
class Body:
    """The body of a pure operator that runs.

    Args:
        node: The call, with its inputs' values.
        trials: What is guessed in it.
        prompt: The last that was asked in it: the next one is likely to begin with it.
        turn_s: When a guess may be sent: in one step with that prompt it would make others wait for
            both.
        last: The closed answers that came in it last, by site.
        guessed: What was guessed of calls that are open, by key.
        tried: Those guesses that were tried, by key, with how probable they are at least.
        why: Why nothing comes of the others, by key.
    """

    node: OperatorNode
    trials: list[Trial] = field(default_factory=list)
    prompt: Sequence[int] = ()
    turn_s: float = 0.0
    last: dict[str, str] = field(default_factory=dict)
    guessed: dict[bytes, list[Predicted]] = field(default_factory=dict)
    tried: dict[bytes, list[tuple[Predicted, float]]] = field(default_factory=dict)
    why: dict[bytes, WhyNoGuess] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Trial:
    """A guess that is tried.

    Args:
        body: Where.
        node: The call that is open.
        site: Where it is made, for what is learned.
        predicted: What it is guessed to come to.
        shadow: The run of the body as if it did.
        until_s: When the truth is expected, by the event loop's clock.
        is_right: Whether it came to that; `None` while it is open.
        above: The trial in whose shadow the call is open; `None` where it is the session's own.
        prompt: The last that was asked in its shadow.
    """

    body: Body
    node: Node
    site: str
    predicted: Predicted
    shadow: Shadow
    until_s: float
    is_right: bool | None = None
    above: Trial | None = None
    prompt: Sequence[int] = ()

    @property
    def chain(self) -> Iterator[Trial]:
        """Itself and all that it stands on, the session's own open call last."""
        found: Trial | None = self
        while found is not None:
            yield found
            found = found.above

    @property
    def root(self) -> Trial:
        """The one below all that it stands on: of the call that the session itself has open."""
        *_, found = self.chain
        return found
