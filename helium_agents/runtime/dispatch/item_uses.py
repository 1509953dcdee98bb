"""What each open item has of an engine: what schedules go by that keep sessions' prefixes."""

from __future__ import annotations

import uuid
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from helium_agents.engines.engine import Completion, Request
from helium_agents.optimizer.prefix_tree import PrefixTree, num_shared_tokens
from helium_agents.optimizer.schedule import ItemUse, Turn

_NUM_TURNS = 64
"""So many turns tell how it goes at present."""

_LEAST_TURNS = 16
"""With fewer nobody can tell."""


@dataclass(slots=True)
class _Sent:
    """What was sent of an item.

    Args:
        first_tokens: Of its first prompt.
        num_requests: So many.
        last_prompt: The last one.
        begun_s: Since when the engine had something of it without a pause.
        running: What is on the engine, with its prompts as the tree has them.
        prompts: The tree of these: what they share is counted once.
        running_tokens: What all of these may write.
        answer_tokens: Of the answer that ended last; `None` where it came to nothing.
    """

    first_tokens: int
    last_prompt: Sequence[int]
    begun_s: float
    num_requests: int = 0
    running: dict[Request, array[int]] = field(default_factory=dict)
    prompts: PrefixTree = field(default_factory=PrefixTree)
    running_tokens: int = 0
    answer_tokens: int | None = None

    def begin(self, request: Request) -> None:
        """A request is sent."""
        self.num_requests += 1
        self.last_prompt = request.prompt_token_ids
        prompt = self.running[request] = array("I", request.prompt_token_ids)
        self.prompts.insert(prompt, request)
        self.running_tokens += request.max_tokens

    def end(self, request: Request) -> None:
        """A request has ended."""
        self.prompts.remove(self.running.pop(request), request)
        self.running_tokens -= request.max_tokens

    @property
    def distinct_tokens(self) -> int:
        """Tokens of what is running with its answers, what is shared counted once."""
        return self.prompts.num_tokens + self.running_tokens


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
        self._usual: Turn | None = None  # of these
        self._sent: dict[int, _Sent] = {}
        self.shared_tokens = 0
        self.growth_tokens = 0.0
        self._num_grown = self._grown_tokens = 0
        self._first: Sequence[int] | None = None
        self._has_compared = False
        self._prompts: dict[int, Sequence[int]] = {}  # the last of each, where hints are given
        self._tree = PrefixTree()  # of these
        self._id = uuid.uuid4().hex[:8]  # an engine may serve others too
        self._ended: dict[int, int] = {}  # which the engine does not know of, with what is shared
        self.began_for: dict[Request, int] = {}

    @property
    def usual_turn(self) -> Turn | None:
        """The mean of the last turns; `None` while they are too few to tell."""
        if self._usual is None and len(self.turns) >= _LEAST_TURNS:
            sums = map(sum, zip(*self.turns, strict=True))
            self._usual = Turn(*(each / len(self.turns) for each in sums))
        return self._usual

    def come(
        self, request: Request, item: int, now_s: float, others: Iterable[ItemUses] = ()
    ) -> None:
        """A request of an item stands ready.

        Args:
            request: The request.
            item: The item.
            now_s: When.
            others: What items have of the engines of other models: what passes there is no pause.
        """
        sent = self._sent.get(item)
        if sent is None or sent.answer_tokens is None:
            return
        paused_s = self.items[item].paused_s
        if paused_s is None or any(other.had(item, paused_s) for other in others):
            return
        last, prompt = sent.last_prompt, request.prompt_token_ids
        # where it goes on after the last one, what began the answer stands at the same place
        if len(prompt) > len(last) > 0 and prompt[len(last) - 1] == last[-1]:
            turn = Turn(paused_s - sent.begun_s, sent.answer_tokens, now_s - paused_s)
            self.turns.append(turn)
            self._usual = None
            sent.answer_tokens = None  # of further ones it is no turn

    def had(self, item: int, since_s: float) -> bool:
        """Whether the engine has had something of an item since then."""
        use = self.items.get(item)
        return use is not None and (use.paused_s is None or use.paused_s > since_s)

    def begin(self, request: Request, now_s: float) -> None:
        """A request of an item is sent."""
        item, prompt = request.item, request.prompt_token_ids
        if item is None:
            return
        if item in self._sent:
            use, sent = self.items[item], self._sent[item]
            use.growth_tokens = max(0.0, (len(prompt) - sent.first_tokens) / sent.num_requests)
            self._num_grown += 1
            self._grown_tokens += max(0, len(prompt) - len(sent.last_prompt))
            self.growth_tokens = self._grown_tokens / self._num_grown
        else:
            self._compare(prompt)
            use = self.items[item] = ItemUse(0, max(request.max_tokens, self.growth_tokens))
            sent = self._sent[item] = _Sent(len(prompt), prompt, now_s)
        if use.paused_s is not None:
            sent.begun_s = now_s
        use.paused_s, use.has_place = None, True
        sent.begin(request)
        use.tokens = sent.distinct_tokens
        self.began_for[request] = item

    def end(self, request: Request, completion: Completion | None, now_s: float) -> None:
        """A request has ended; with no completion it failed, or was cancelled."""
        item = self.began_for.pop(request, None)
        sent = None if item is None else self._sent.get(item)
        if item is None or sent is None:
            return  # it is of no item, or of one that has ended
        sent.end(request)
        sent.answer_tokens = None if completion is None else completion.output_tokens
        use = self.items[item]
        if sent.running:
            use.tokens = sent.distinct_tokens
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
        self._sent.pop(item, None)

    def _compare(self, prompt: Sequence[int]) -> None:
        """Take note of the first prompt of an item."""
        if self._first is None:
            self._first = prompt
            return
        num_shared = num_shared_tokens(self._first, prompt)
        is_less = not self._has_compared or num_shared < self.shared_tokens
        self.shared_tokens = num_shared if is_less else self.shared_tokens
        self._has_compared = True
