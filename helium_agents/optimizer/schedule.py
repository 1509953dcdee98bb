"""Schedules: which of the requests that stand ready goes to the engine next, or none yet.

Everything open is what serves best where nothing is known: an engine loses more by a batch that is
not full than by a prefix that it computes again. Whoever knows how many items of a workload fit
into the KV cache says so with `FewOpen`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from helium_agents.errors import SessionError
from helium_agents.optimizer.policy import AtMost, Policy
from helium_agents.optimizer.step_cost import StepCost


class Asked(Protocol):
    """What a schedule sees of a request.

    Attributes:
        priority: Lower runs first on the engine, which preempts by it too. 0, unless the schedule
            sets it when it chooses the request.
    """

    priority: int

    @property
    def prompt_token_ids(self) -> Sequence[int]:
        """The prompt."""
        ...

    @property
    def item(self) -> int | None:
        """The item of a top-level `map` that it is wanted for, counted as they are read."""
        ...

    @property
    def depth(self) -> int:
        """How many calls its call is inside of."""
        ...

    @property
    def max_tokens(self) -> int:
        """Most tokens of its answer."""
        ...


@dataclass(slots=True)
class ItemUse:
    """What an open item has of an engine.

    Args:
        tokens: Of the prompts that are on the engine, each with its answer and without what they
            share; where none is, of the last one.
        growth_tokens: By how much its prompts grow from one to the next, on average; the most
            tokens of the answer, before the second one.
        paused_s: Since when nothing of it is on the engine; `None` while something is.
        has_place: Whether what it has in the KV cache is kept for it; set when something of it is
            sent, and by a schedule that takes it away.
    """

    tokens: int
    growth_tokens: float
    paused_s: float | None = None
    has_place: bool = True


class Turn(NamedTuple):
    """A request of an item, and the time until the one that goes on where it ended.

    Args:
        service_s: Seconds for which the engine had it, or others of the item before it without a
            pause.
        answer_tokens: Of its answer.
        pause_s: Seconds from its end until the next one stood ready.
    """

    service_s: float
    answer_tokens: float
    pause_s: float

    @property
    def pause_share(self) -> float:
        """Of its time, what the item was away from the engine, from 0 to 1."""
        return self.pause_s / (self.pause_s + self.service_s or 1.0)


class Room(Protocol):
    """What a schedule sees of an engine."""

    @property
    def max_requests(self) -> int:
        """Requests computed in one step."""
        ...

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV cache in all."""
        ...


class Queue(Protocol):
    """What a schedule chooses from."""

    @property
    def ready(self) -> Collection[Asked]:
        """The requests that wait, as they came; not empty."""
        ...

    @property
    def ready_of_open(self) -> Collection[Asked]:
        """Those of them that are of an open item, or of none."""
        ...

    @property
    def next_item(self) -> Asked | None:
        """The first of the others, of the item that was read first; `None` where there is none."""
        ...

    @property
    def running(self) -> Collection[Asked]:
        """The requests that the engine has."""
        ...

    @property
    def open_items(self) -> Set[int]:
        """The items for which something has been sent, and that have not ended."""
        ...

    @property
    def items(self) -> Mapping[int, ItemUse]:
        """The items that have sent something to this engine, and have not ended."""
        ...

    @property
    def num_engines(self) -> int:
        """How many engines hold the room together, each an equal part of it."""
        ...

    @property
    def shared_tokens(self) -> int:
        """Tokens that the first prompts of all items have in common at their beginning."""
        ...

    @property
    def growth_tokens(self) -> float:
        """By how much the prompts of an item grow from one to the next, on average of all."""
        ...

    @property
    def turns(self) -> Collection[Turn]:
        """The last turns of items."""
        ...

    @property
    def usual_turn(self) -> Turn | None:
        """What these were like, on average; `None` before there are enough."""
        ...

    @property
    def cost(self) -> StepCost | None:
        """What a step of an engine takes; `None` where that is not known."""
        ...

    def prefill_seconds(self, num_tokens: float, start: float) -> float | None:
        """What prompt tokens add to a step, where `start` come before them, if that is known."""
        ...

    @property
    def now_s(self) -> float:
        """The time, by the clock of `ItemUse.paused_s`."""
        ...

    @property
    def is_stalled(self) -> bool:
        """Whether no engine has had anything for a while, although something stands ready."""
        ...

    @property
    def room(self) -> Room | None:
        """What the engine holds; `None` where there is no limit."""
        ...


class Schedule(Protocol):
    """Chooses; knows no event loop."""

    def keeps_prefixes(self, queue: Queue) -> bool:
        """Whether it counts on what items left in the KV cache; then the ended ones' goes first."""
        ...

    def choose(self, queue: Queue) -> Asked | None:
        """Which request goes next; `None`: none, until one has ended or another is ready."""
        ...

    def look_again_s(self, queue: Queue) -> float | None:
        """When it may choose otherwise although nothing has happened; `None`: never."""
        ...


class Gated:
    """First come, first served, among the items that a policy has open.

    A further item, the first that was read, is begun when the policy allows it, or where nothing
    has been sent for a while: the open ones may be waiting for one that is not.

    Args:
        policy: Says which item may be begun beside the open ones.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def keeps_prefixes(self, queue: Queue) -> bool:
        """No."""
        return False

    def choose(self, queue: Queue) -> Asked | None:
        """The first of an open item, or of one that may be opened."""
        if not has_slot(queue):
            return None
        for asked in queue.ready_of_open:
            return asked
        first = queue.next_item
        if first is None or queue.is_stalled:
            return first
        return first if self.policy.may_open(item_of(first), queue.open_items) else None

    def look_again_s(self, queue: Queue) -> None:
        """Never, but where it is stalled."""


class EverythingOpen:
    """First come, first served, as long as the engine has slots and a short queue."""

    def keeps_prefixes(self, queue: Queue) -> bool:
        """No."""
        return False

    def choose(self, queue: Queue) -> Asked | None:
        """The first."""
        return next(iter(queue.ready)) if has_slot(queue) else None

    def look_again_s(self, queue: Queue) -> None:
        """Never."""


class FewOpen(Gated):
    """A fixed number of open items.

    Args:
        max_open: Most items of top-level maps that are open at once; at least 1.
    """

    def __init__(self, max_open: int) -> None:
        if type(max_open) is not int or max_open < 1:
            raise SessionError(f"max_open={max_open!r} must be a whole number, at least 1")
        self.policy: AtMost
        super().__init__(AtMost(max_open))


def item_of(asked: Asked) -> int:
    """The item of a request that has one."""
    assert asked.item is not None
    return asked.item


def has_slot(queue: Queue) -> bool:
    """Whether the engine has a slot, or its own queue is so short that a slot might go empty."""
    if queue.room is None:
        return True
    most = queue.room.max_requests
    return len(queue.running) < most + max(_SHORT_QUEUE, most // 4)


_SHORT_QUEUE = 8
