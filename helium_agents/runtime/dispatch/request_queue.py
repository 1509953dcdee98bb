"""The requests of one model that wait or run: what a schedule sees of them.

No request waits for ever. A schedule may always have something that goes before one, so each time
that so many others were sent since the oldest came, that one goes. Of a request that has p others
before it when it comes, no more than `EVERY` * (p + 1) are sent before it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Collection
from functools import partial

from helium_agents.engines.engine import Capacity, Completion, Request, nobody
from helium_agents.optimizer.schedule import Turn
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.runtime.dispatch.item_uses import ItemUses
from helium_agents.runtime.dispatch.settling import Settling
from helium_agents.runtime.fleet.fleet import Fleet

EVERY = 256
"""So seldom that it costs a schedule nothing: now and then one prompt is computed again."""

_TELLING_TOKENS = 64
"""Of shorter prompts the time is mostly that of a step."""


class RequestQueue:
    """A `schedule.Queue`; each of its operations takes the same time however many wait.

    Args:
        fleet: The engines of the model.
        open_items: The items for which something has been sent, and that have not ended.

    Attributes:
        ready: The requests that wait, as they came.
        running: Those that the engines have, with the tokens reserved for each.
        uses: What each item has of the engines.
        room: What the engines hold.
        is_stalled: Whether nothing was sent for a while.
        now_s: The event loop's clock.
        alarm: Ends a stall.
        look_again: Set by the schedule.
        settling: Until the planner looks at rows.
    """

    def __init__(self, fleet: Fleet, open_items: set[int]) -> None:
        self.fleet = fleet
        self.open_items = open_items
        self.ready: OrderedDict[Request, None] = OrderedDict()  # its first is found at once
        self.running: dict[Request, int] = {}
        self.uses = ItemUses()
        self.items = self.uses.items
        self.room: Capacity | None = None
        self.is_stalled = False
        self._token_s: float | None = None
        self.now_s, self._cost_s = 0.0, -1.0
        self._cost: StepCost | None = None
        self.alarm: asyncio.TimerHandle | None = None
        self.look_again: asyncio.TimerHandle | None = None
        self.settling: Settling | None = None
        self.ready_of_open: OrderedDict[Request, None] = OrderedDict()
        self._of_others: dict[int, dict[Request, None]] = {}
        self._other_items: list[int] = []  # a heap; some of them may have gone
        self._turns: dict[Request, asyncio.Future[None]] = {}
        self._num_sent = self._num_at_oldest = 0  # in all, and when last the oldest was
        self._came: dict[Request, int] = {}  # those that wait, after so many were sent
        self._item_of: dict[Request, int] = {}  # of those of items that are not open

    # --- what waits ----------------------------------------------------------------------------

    def add(self, request: Request) -> None:
        """A request stands ready."""
        self.ready[request] = None
        self._came[request] = self._num_sent
        self._file(request)
        request.on_moved = partial(self._move, request)

    def _file(self, request: Request) -> None:
        item = request.item
        if item is None or item in self.open_items:
            self.ready_of_open[request] = None
            return
        others = self._of_others.get(item)
        if others is None:
            others = self._of_others[item] = {}
            heapq.heappush(self._other_items, item)
        others[request] = None
        self._item_of[request] = item

    def _unfile(self, request: Request) -> None:
        item = self._item_of.pop(request, None)
        if item is None:
            del self.ready_of_open[request]
            return
        others = self._of_others[item]
        del others[request]
        if not others:
            del self._of_others[item]

    def _move(self, request: Request) -> None:
        """A request is wanted for another item."""
        if request in self._came:
            self._unfile(request)
            self._file(request)

    def opened(self, item: int) -> None:
        """An item is open from now on."""
        others = self._of_others.pop(item, {})
        self.ready_of_open.update(others)
        for request in others:
            del self._item_of[request]

    async def turn(self, request: Request) -> None:
        """Wait until a request that stands ready is sent.

        Raises:
            Exception: What it was refused with.
        """
        turn = self._turns[request] = asyncio.get_running_loop().create_future()
        await turn

    @property
    def next_item(self) -> Request | None:
        """The first request of the first item that is not open."""
        while self._other_items:
            others = self._of_others.get(self._other_items[0])
            if others:
                return next(iter(others))
            heapq.heappop(self._other_items)
        return None

    # --- what goes -----------------------------------------------------------------------------

    def is_busy_for(self, seconds: float) -> bool:
        """Whether the prompts that the engine has take it so long."""
        if self.cost is None:
            return False
        num_tokens = sum(len(request.prompt_token_ids) for request in self.running)
        return self.cost.prefill_s * num_tokens >= seconds * self.num_engines

    def overdue(self) -> Request | None:
        """The oldest request, where so many were sent past it that it goes next."""
        oldest = next(iter(self.ready))
        num_past = self._num_sent - max(self._came[oldest], self._num_at_oldest)
        return oldest if num_past >= EVERY - 1 else None

    def send(self, request: Request, reserved_tokens: int) -> None:
        """A request's turn has come."""
        self._num_sent += 1
        if request is next(iter(self.ready)):
            self._num_at_oldest = self._num_sent
        self.drop(request)
        self.running[request] = reserved_tokens
        self.is_stalled = False
        turn = self._turns.pop(request, None)
        if turn is not None and not turn.done():
            turn.set_result(None)

    def refuse(self, request: Request, error: Exception) -> None:
        """A request will not be sent.

        Raises:
            Exception: The error, if who asks has not begun to wait.
        """
        self.drop(request)
        turn = self._turns.pop(request, None)
        if turn is None:
            raise error
        if not turn.done():
            turn.set_exception(error)

    def drop(self, request: Request) -> None:
        """A request waits no more; nothing happens if it did not."""
        if self._came.pop(request, None) is None:
            return
        del self.ready[request]
        self._unfile(request)
        request.on_moved = nobody

    def end(self, request: Request) -> int:
        """A request has ended, sent or not; gives back the tokens that were reserved for it."""
        self.drop(request)
        self._turns.pop(request, None)
        return self.running.pop(request, 0)

    # --- what is seen of items -----------------------------------------------------------------

    @property
    def num_engines(self) -> int:
        """How many hold `room` together."""
        return self.fleet.num_engines

    @property
    def shared_tokens(self) -> int:
        """Of the first prompts of all items at their beginning."""
        return self.uses.shared_tokens

    @property
    def growth_tokens(self) -> float:
        """Of the prompts of an item from one to the next."""
        return self.uses.growth_tokens

    @property
    def turns(self) -> Collection[Turn]:
        """The last turns of items."""
        return self.uses.turns

    @property
    def usual_turn(self) -> Turn | None:
        """What these were like."""
        return self.uses.usual_turn

    @property
    def cost(self) -> StepCost | None:
        """Of a step of one of the engines, where that is known; it may be corrected at any time."""
        if self._cost_s != self.now_s:  # a schedule looks at it once for each item
            self._cost_s, self._cost = self.now_s, self.fleet.cost
        return self._cost

    def prefill_seconds(self, num_tokens: float, start: float) -> float | None:
        """Of prompt tokens; where the engine does not say so, what they took at most."""
        if (cost := self.cost) is not None:
            return cost.prefill_seconds(num_tokens, start)
        return None if self._token_s is None else self._token_s * num_tokens

    def note_prefill(self, request: Request, completion: Completion, sent_s: float) -> None:
        """See how long a token took at most: until the first one, or else the whole answer."""
        num_tokens = len(request.prompt_token_ids) - completion.cached_tokens
        if num_tokens < _TELLING_TOKENS:
            return
        end_s = completion.first_token_s or asyncio.get_running_loop().time()
        seconds = (end_s - sent_s) / num_tokens
        self._token_s = seconds if self._token_s is None else min(self._token_s, seconds)
