"""What open rows have declared: the calls that each made before any of them was answered.

Most rows ask all of those that they can. A row that asks one after the other what could be asked
at once is taken to go on in the order in which it made them; that is seen when it is planned, or
when its first call is answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from helium_agents.engines.engine import Request
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node
from helium_agents.graph.plan import LogicalPlan, as_plan_node
from helium_agents.graph.plan_node import PlanNode
from helium_agents.optimizer.coming import Coming
from helium_agents.optimizer.forecast import Forecast, forecast
from helium_agents.optimizer.text_lengths import Prompt, text_lengths
from helium_agents.runtime.learning.learner import Learner
from helium_agents.runtime.learning.learners import Learners

_MOST_CHARACTERS = 4_000_000
"""Of prompts, so much is looked at, in a tenth of a second or two: the event loop waits for it."""


@dataclass(slots=True)
class _Row:
    """What an open row has made.

    Args:
        declared: The calls before any was answered.
        num_made: How many in all.
        asked_late: Whether, when an engine answered the first of them, it had left others that it
            could have asked; `None` before.
    """

    declared: list[LlmNode] = field(default_factory=list)
    num_made: int = 0
    asked_late: bool | None = None

    def asks_late(self) -> bool:
        """Whether it has begun to ask, one after the other what could be asked at once."""
        if self.asked_late is not None:
            return self.asked_late
        if any(node.outcome is not None for node in self.declared):
            return False  # from the memo: nobody can tell what it has spared
        asked = [node for node in self.declared if node.is_asked]
        needed = _with_inputs(asked)
        return bool(asked) and any(
            node not in needed and all(each.outcome is not None for each in node.inputs)
            for node in self.declared
        )


class DeclaredRows:
    """The open rows of a session and their declared calls.

    Args:
        learners: Know the sites of calls, and the engines of models.
    """

    def __init__(self, learners: Learners) -> None:
        self._learners = learners
        self._rows: dict[int, _Row] = {}
        self._is_believed = False  # by the last forecast: that rows ask at once all they declare
        self._questions: dict[Hashable, Hashable] = {}  # by declared call, in the last forecast
        self._sent: set[Hashable] = set()  # declared calls
        self._coming: Coming | None = None

    def __len__(self) -> int:
        return len(self._rows)

    # --- what happens ---------------------------------------------------------------------------

    def declare(self, node: Node) -> None:
        """A call of a row was made. It is declared if it is made before any of them is answered."""
        item = node.frame.item
        if item.is_nested or not isinstance(node, LlmNode):
            return
        row = self._rows.get(item.rank)
        if row is None:
            row = self._rows[item.rank] = _Row()
        row.num_made += 1
        if not row.declared or row.declared[0].outcome is None:
            row.declared.append(node)
        else:
            self._coming = None  # more come than rows have declared

    def send(self, request: Request) -> int | None:
        """An expected request is sent.

        Returns:
            How many of the first tokens of its prompt and answer calls to come will begin with;
            `None` where it may be all of them.
        """
        assert self._coming is not None
        question = self._questions[request.call]
        self._sent.add(request.call)
        self._coming.send(question)
        return self._coming.used_tokens(question, len(request.prompt_token_ids))

    def answer(self, item: int) -> bool:
        """A call of a row has ended.

        Returns:
            Whether that shows the last forecast to be wrong: the row asks one after the other.
        """
        row = self._rows.get(item)
        if row is None or row.asked_late is not None:
            return False
        row.asked_late = row.asks_late()
        return row.asked_late and self._is_believed

    def end(self, item: int) -> bool:
        """A row has ended.

        Returns:
            Whether it had declared all of its calls, and asked at once what it could.
        """
        row = self._rows.pop(item, None)
        if row is None:
            return False
        self._sent.difference_update(row.declared)
        return row.num_made == len(row.declared) and not row.asked_late

    # --- what is known --------------------------------------------------------------------------

    def forecast(
        self,
        requests: Iterable[Request],
        learner: Learner | None,
        most_rows: int,
        most_calls: int,
    ) -> Forecast:
        """What the first rows have declared and is to be answered yet.

        Args:
            requests: Some that were asked: they tell how long texts are.
            learner: Knows how long answers are, where there is one; else they are taken to be as
                long as they may be.
            most_rows: So many are looked at.
            most_calls: With so many, no more rows are.
        """
        self._is_believed = not any(row.asks_late() for row in self._rows.values())
        self._questions = {}
        self.expect(None)
        ids: dict[Node, int] = {}
        nodes: list[PlanNode] = []
        lengths: dict[int, int] = {}
        sites: dict[int, str] = {}
        num_characters = 0
        for item in sorted(self._rows)[:most_rows]:
            turns: Counter[str] = Counter()
            before: LlmNode | None = None
            for node in self._rows[item].declared:
                site = self._learners.site(item, node)
                turns[site] += 1
                if node.outcome is not None:
                    continue
                for each in (*node.inputs, node):
                    ids.setdefault(each, len(ids) + 1)
                planned = as_plan_node(node, ids)
                if before is not None and not (self._is_believed or node.is_asked):
                    planned = planned._replace(inputs=(*planned.inputs, ids[before]))
                before = node
                nodes.append(planned)
                self._questions[node] = planned.key or planned.id
                sites[planned.id] = site
                most = planned.max_tokens or 1
                lengths[planned.id] = _length(learner, site, turns[site] - 1, most)
                num_characters += _num_characters(node)
            if len(nodes) > most_calls or num_characters > _MOST_CHARACTERS:
                break
        return forecast(
            LogicalPlan(nodes, ()),
            lambda node: lengths[node.id],
            text_lengths([_prompt(request) for request in requests]),
            lambda node: sites[node.id],
            self._learners.engine,
        )

    def are_all(self, found: Forecast, learner: Learner | None) -> bool:
        """Whether no more calls come than those of the last forecast.

        Before a row has ended, those are believed who have made calls of what others will answer.
        """
        declares = None if learner is None else learner.declares
        if declares is None:
            return self._is_believed and any(call.inputs for row in found.rows for call in row)
        return declares

    def expect(self, found: Forecast | None) -> None:
        """Take the calls of the last forecast to be all that come, until it is seen that more do.

        Args:
            found: The forecast; `None` to expect nothing.
        """
        if found is None:
            self._coming = None
            return
        sent = {self._questions[call] for call in self._sent if call in self._questions}
        self._coming = Coming(found, sent)

    def is_expected(self, request: Request) -> bool:
        """Whether a request is one of those calls."""
        return self._coming is not None and request.call in self._questions


def _with_inputs(nodes: Iterable[Node]) -> set[Node]:
    found: set[Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += node.inputs
    return found


def _length(learner: Learner | None, site: str, turn: int, most: int) -> int:
    """How long an answer will be: as the like ones were, or else as long as it may be."""
    found = None if learner is None else learner.output_tokens(site, turn)
    return most if found is None else max(1, min(most, round(found)))


def _num_characters(node: LlmNode) -> int:
    return sum(
        len(segment)
        for _, segments in node.call.messages
        for segment in segments
        if isinstance(segment, str)
    )


def _prompt(request: Request) -> Prompt:
    texts = [message.content for message in request.messages]
    return Prompt(request.item, texts, request.prompt_token_ids)
