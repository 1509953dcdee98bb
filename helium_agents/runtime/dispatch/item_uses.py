"""What each open item has of an engine: what schedules go by that keep sessions' prefixes."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from helium_agents.engines.engine import Completion, Request
from helium_agents.optimizer.prefix_tree import PrefixTree, num_shared_tokens
from helium_agents.optimizer.schedule import ItemUse


class Turn(NamedTuple):
    """What came of a request that went on where its item's last one had ended.

    Args:
        pause_s: Seconds since the last one.
        service_s: Seconds that it took itself.
    """

    pause_s: float
    service_s: float


_NUM_TURNS = 64
"""So many turns tell how it goes at present."""

_LEAST_TURNS = 16
"""With fewer nobody can tell."""


class ItemUses:
    """The uses of all items that have sent something and have not ended.

    Attributes:
        items: By item.
        turns: The last ones.
        growth_tokens: By how much prompts of an item grow from one to the next, on average of all.
        shared_tokens: Tokens that the first prompts of all items have in common; 0 before there
            are two.
        began_for: The requests under way, with the items that they began for: they may get others.
    """

    def __init__(self) -> None:
        self.items: dict[int, ItemUse] = {}
        self.turns: deque[Turn] = deque(maxlen=_NUM_TURNS)
        self._last_prompts: dict[int, Sequence[int]] = {}
        self._going_on: dict[Request, tuple[float, float]] = {}
        self.shared_tokens = 0
        self.growth_tokens = 0.0
        self._num_grown = self._grown_tokens = 0
        self._first: Sequence[int] | None = None
        self._has_compared = False
        self._prompts: dict[int, Sequence[int]] = {}  # the last of each, where hints are given
        self._tree = PrefixTree()  # of these
        self._id = uuid.uuid4().hex[:8]  # an engine may serve others too
        self._ended: dict[int, int] = {}  # which the engine does not know of, with what is shared
        self._running: dict[int, list[Request]] = {}
        self.began_for: dict[Request, int] = {}
        self._turns: dict[int, tuple[int, int]] = {}  # how many, and the tokens of the first prompt

    @property
    def pause_share(self) -> float | None:
        """Of the time of items lately: what they were away from the engine, if that is known."""
        if len(self.turns) < _LEAST_TURNS:
            return None
        pause_s = sum(turn.pause_s for turn in self.turns)
        return pause_s / (pause_s + sum(turn.service_s for turn in self.turns) or 1.0)

    def begin(self, request: Request, now_s: float) -> None:
        """A request of an item is sent."""
        item, prompt = request.item, request.prompt_token_ids
        if item is None:
            return
        use = self.items.get(item)
        if use is None:
            self._compare(prompt)
            use = self.items[item] = ItemUse(0, max(request.max_tokens, self.growth_tokens))
            self._turns[item] = 1, len(prompt)
        else:
            last = self._last_prompts[item]
            # where it goes on after the last one, what began the answer stands at the same place
            goes_on = len(prompt) > len(last) > 0 and prompt[len(last) - 1] == last[-1]
            if use.paused_s is not None and goes_on:
                self._going_on[request] = now_s - use.paused_s, now_s
            num_turns, first_tokens = self._turns[item]
            self._turns[item] = num_turns + 1, first_tokens
            use.growth_tokens = max(0.0, (len(prompt) - first_tokens) / num_turns)
            self._num_grown += 1
            self._grown_tokens += max(0, len(prompt) - len(last))
            self.growth_tokens = self._grown_tokens / self._num_grown
        self._last_prompts[item] = prompt
        use.paused_s, use.has_place = None, True
        self.began_for[request] = item
        running = self._running.setdefault(item, [])
        running.append(request)
        use.tokens = _distinct_tokens(running)

    def end(self, request: Request, completion: Completion | None, now_s: float) -> None:
        """A request has ended; with no completion it failed, or was cancelled."""
        item = self.began_for.pop(request, None)
        going_on = self._going_on.pop(request, None)
        if going_on is not None and completion is not None:
            pause_s, begin_s = going_on
            self.turns.append(Turn(pause_s, now_s - begin_s))
        running = None if item is None else self._running.get(item)
        if item is None or running is None:
            return  # it is of no item, or of one that has ended
        running.remove(request)
        use = self.items[item]
        if running:
            use.tokens = _distinct_tokens(running)
        else:
            use.tokens = len(request.prompt_token_ids)
            if completion is not None:
                use.tokens = (use.tokens or completion.prompt_tokens) + completion.output_tokens
            use.paused_s = now_s

    def hints(self, request: Request) -> dict[str, Any]:
        """What an engine is told with a request of an item; see `engines.hinted_scheduler`."""
        item, prompt = self.began_for[request], request.prompt_token_ids
        if item in self._prompts:
            self._tree.remove(self._prompts[item], item)
        self._prompts[item] = prompt
        self._tree.insert(prompt, item)
        hints: dict[str, Any] = {"helium_session": self._name(item)}
        if self._ended:
            hints["helium_ended"] = [self._name(ended) for ended in self._ended]
            hints["helium_kept_tokens"] = list(self._ended.values())
            self._ended = {}
        return hints

    def _name(self, item: int) -> str:
        return f"{self._id}-{item}"

    def forget(self, item: int) -> None:
        """An item has ended."""
        self.items.pop(item, None)
        prompt = self._prompts.pop(item, None)
        if prompt is not None:
            self._tree.remove(prompt, item)
            self._ended[item] = self._tree.num_shared(prompt)
        self._turns.pop(item, None)
        self._last_prompts.pop(item, None)
        self._running.pop(item, None)

    def _compare(self, prompt: Sequence[int]) -> None:
        """Take note of the first prompt of an item."""
        if self._first is None:
            self._first = prompt
            return
        num_shared = num_shared_tokens(self._first, prompt)
        is_less = not self._has_compared or num_shared < self.shared_tokens
        self.shared_tokens = num_shared if is_less else self.shared_tokens
        self._has_compared = True


def _distinct_tokens(running: Sequence[Request]) -> int:
    """Tokens of requests with their answers, without what they share with the first of them."""
    first = running[0]
    total = len(first.prompt_token_ids) + first.max_tokens
    for other in running[1:]:
        num_shared = num_shared_tokens(first.prompt_token_ids, other.prompt_token_ids)
        total += len(other.prompt_token_ids) - num_shared + other.max_tokens
    return total
