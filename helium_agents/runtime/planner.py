"""The planner: knows what declared rows will ask, and which of them to have open at once.

Rows whose calls are all declared when they open can be simulated before they run. That is done
when a request stands ready and the engine is known, again each time a quarter more rows are known,
and on the first rows only where there are many: what fits into a KV cache does not depend on how
many wait.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from itertools import islice

from helium_agents.engines.engine import Completion, Request
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node
from helium_agents.graph.plan import LogicalPlan, PlanNode
from helium_agents.optimizer.choose_policy import Choice, choose_policy
from helium_agents.optimizer.coming import Coming
from helium_agents.optimizer.forecast import forecast
from helium_agents.optimizer.logical import plan_node
from helium_agents.optimizer.simulate import SimulatedRoom
from helium_agents.optimizer.text_lengths import Prompt, text_lengths
from helium_agents.telemetry.events import Observer, ScheduleChosen

_MOST_ROWS, _MOST_CALLS, _MOST_CHARACTERS = 128, 1024, 4_000_000
"""So much is looked at, in a tenth of a second or two: the event loop waits for it."""

_MOST_PROMPTS = 64
_LEAST_ROWS = 4


class Planner:
    """What is known of the rows that are open.

    Args:
        emit: Takes events.

    Attributes:
        choice: The last choice.
    """

    def __init__(self, emit: Observer) -> None:
        self.choice = Choice()
        self._emit = emit
        self._rows: dict[int, list[LlmNode]] = {}
        self._num_planned = 0
        self._coming: Coming | None = None
        self._questions: dict[Hashable, Hashable] = {}  # by call
        self._sent: set[Hashable] = set()  # calls
        self._output_tokens: dict[int, tuple[int, int]] = {}  # by their limit: sum and number

    def declare(self, node: Node) -> None:
        """A call of a row was made. Those count that are made before any of them is answered."""
        item = node.frame.item
        if item.is_nested or not isinstance(node, LlmNode):
            return
        row = self._rows.setdefault(item.rank, [])
        if not row or row[0].outcome is None:
            row.append(node)

    def forget(self, item: int) -> None:
        """A row has ended."""
        self._sent.difference_update(self._rows.pop(item, ()))
        if len(self._rows) < self._num_planned // 2:
            self._num_planned = len(self._rows)  # of other rows that come, plan anew

    def note(self, request: Request, completion: Completion) -> None:
        """An answer has come: how long such answers are."""
        total, number = self._output_tokens.get(request.max_tokens, (0, 0))
        self._output_tokens[request.max_tokens] = (
            total + completion.output_tokens // max(1, len(completion.choices)),
            number + 1,
        )

    def send(self, request: Request) -> int | None:
        """A request is sent. How many of its first tokens calls to come will begin with.

        Returns:
            `None` where that is not known, or it may be all of them.
        """
        if self._coming is None or request.call not in self._questions:
            return None
        question = self._questions[request.call]
        self._sent.add(request.call)
        self._coming.send(question)
        return self._coming.used_tokens(question, len(request.prompt_token_ids))

    @property
    def num_rows(self) -> int:
        """How many rows are known."""
        return len(self._rows)

    @property
    def has_news(self) -> bool:
        """Whether so many rows are known that choosing again may come out otherwise."""
        is_more = len(self._rows) >= max(_LEAST_ROWS, 1.25 * self._num_planned)
        return is_more and self._num_planned < _MOST_ROWS

    def choose(self, room: SimulatedRoom, requests: Iterable[Request]) -> Choice:
        """Which rows to have open at once.

        Args:
            room: The engine.
            requests: Those that it has or that stand ready: they tell how long texts are.
        """
        start_s = time.perf_counter()
        self._num_planned = len(self._rows)
        plan = self._plan()
        lengths = text_lengths([_prompt(request) for request in islice(requests, _MOST_PROMPTS)])
        found = forecast(plan, self._length, lengths)
        choice = self.choice = choose_policy(found, room)
        self._coming = None
        if choice.compared:
            sent = {self._questions[call] for call in self._sent if call in self._questions}
            self._coming = Coming(found, sent)
        self._emit(
            ScheduleChosen(
                str(choice.policy),
                choice.gain,
                choice.predicted_s,
                time.perf_counter() - start_s,
                tuple((str(each.policy), each.seconds, each.gain) for each in choice.compared),
            )
        )
        return choice

    def _plan(self) -> LogicalPlan:
        """The calls of the first rows that are to be answered yet."""
        ids: dict[Node, int] = {}
        nodes: list[PlanNode] = []
        num_characters = 0
        self._questions = {}
        for item in sorted(self._rows)[:_MOST_ROWS]:
            for node in self._rows[item]:
                if node.outcome is None:
                    for each in (*node.inputs, node):
                        ids.setdefault(each, len(ids) + 1)
                    nodes.append(plan_node(node, ids))
                    self._questions[node] = nodes[-1].key or nodes[-1].id
                    num_characters += sum(
                        len(segment)
                        for _, segments in node.call.messages
                        for segment in segments
                        if isinstance(segment, str)
                    )
            if len(nodes) > _MOST_CALLS or num_characters > _MOST_CHARACTERS:
                break
        return LogicalPlan(nodes, ())

    def _length(self, node: PlanNode) -> int:
        most = node.max_tokens or 1
        total, number = self._output_tokens.get(most, (0, 0))
        return max(1, round(total / number)) if number >= _LEAST_ROWS else most


def _prompt(request: Request) -> Prompt:
    texts = [message.content for message in request.messages]
    return Prompt(request.item, texts, request.prompt_token_ids)
