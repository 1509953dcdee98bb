"""The planner: knows what rows will ask, and which of them to have open at once.

What a row will ask is known where it declares its calls before it awaits any, and asks all it can;
of others it is known from a profile, which earlier runs have left or the first rows of this one
make. Rows that ask one after the other what could be asked at once are taken, until there is one,
to go on in the order in which the calls were made. Rows that are known can be simulated before they
run. That is done when a request stands ready and the engine is known, again each time a quarter
more rows are known, or they turn out to be others than expected; and on the first rows only where
there are many: what fits into a KV cache does not depend on how many wait.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

from helium_agents.engines.engine import Completion, Request
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node
from helium_agents.graph.plan import LogicalPlan, as_plan_node
from helium_agents.graph.plan_node import PlanNode
from helium_agents.optimizer.choose_policy import Choice, choose_policy
from helium_agents.optimizer.coming import Coming
from helium_agents.optimizer.expected import expected_sites
from helium_agents.optimizer.forecast import Forecast, forecast
from helium_agents.optimizer.guesses import Histogram
from helium_agents.optimizer.later_use import LaterUse, later_use
from helium_agents.optimizer.policy import ALL_OPEN
from helium_agents.optimizer.predict import predict
from helium_agents.optimizer.simulate import SimulatedRoom
from helium_agents.optimizer.text_lengths import Prompt, text_lengths
from helium_agents.runtime.learning.learner import LEAST_ROWS, Learner
from helium_agents.runtime.learning.learners import Learners, Mapped
from helium_agents.telemetry.events import Observer, ProfileMisfit, ScheduleChosen, ScheduleSource

_MOST_ROWS, _MOST_CALLS, _MOST_CHARACTERS = 128, 1024, 4_000_000
"""So much is looked at, in a tenth of a second or two: the event loop waits for it."""

_MOST_PROMPTS = 64

_ENOUGH_ROWS = 16
"""With so many seen it is chosen anew."""


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


class Planner:
    """What is known of the rows that are open, and will be.

    Attributes:
        choice: The last choice.
    """

    def __init__(self, emit: Observer, learners: Learners) -> None:
        self.choice = Choice()
        self._emit = emit
        self._learners = learners
        self._rows: dict[int, _Row] = {}
        self._mapped: Mapped | None = None  # of the row that began last
        self._num_planned = 0
        self._is_due = False
        self._is_believed = False  # by the last plan: that rows ask at once all they declare
        self._lacks_engine = False  # nothing is known of one that rows will ask
        self._coming: Coming | None = None
        self._questions: dict[Hashable, Hashable] = {}  # by declared call
        self._sent: set[Hashable] = set()  # declared calls

    def histograms(self, item: int) -> Sequence[Histogram]:
        """How often which closed answer came in rows like an open one: in this run, and before."""
        return self._learners.histograms(item)

    # --- what happens ---------------------------------------------------------------------------

    def begin(self, item: int, mapped: Mapped) -> None:
        """A row begins."""
        self._learners.begin(item, mapped)
        self._mapped = mapped

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

    def ask(self, request: Request, now_s: float) -> None:
        """A call stands ready."""
        self._learners.ask(request, now_s)
        self._look_for_misfit(request.item)

    def send(self, request: Request) -> int | None:
        """A request is sent. How many of its first tokens calls to come will begin with.

        Returns:
            `None` where that is not known, or it may be all of them.
        """
        if self._coming is None or request.call not in self._questions:
            return self._learners.used_tokens(request)
        question = self._questions[request.call]
        self._sent.add(request.call)
        self._coming.send(question)
        return self._coming.used_tokens(question, len(request.prompt_token_ids))

    def answer(
        self, request: Request, completion: Completion | None, sent_s: float | None, now_s: float
    ) -> None:
        """A call has ended; with no completion it failed, or was cancelled."""
        self._learners.answer(request, completion, sent_s, now_s)
        self._look_for_misfit(request.item)
        row = None if request.item is None else self._rows.get(request.item)
        if row is not None and row.asked_late is None:
            row.asked_late = row.asks_late()
            self._is_due |= row.asked_late and self._is_believed

    def remembered(self, item: int, is_of_this_run: bool) -> None:
        """A call of a row was answered from the memo; whether this run had computed it."""
        self._learners.remembered(item, is_of_this_run)

    def end(self, item: int) -> None:
        """A row has ended."""
        row = self._rows.pop(item, None)
        self._sent.difference_update(() if row is None else row.declared)
        mapped = self._learners.of(item)
        is_declared = row is not None and row.num_made == len(row.declared) and not row.asked_late
        self._learners.end(item, is_declared=is_declared)
        self._look_for_misfit_of(mapped)
        learner = None if mapped is None else mapped.learner
        if learner is not None and learner.can_predict and learner.profiles[0] is learner.fresh:
            self._is_due |= learner.fresh.num_rows in (LEAST_ROWS, _ENOUGH_ROWS)
        if self.num_rows < self._num_planned // 2:
            self._num_planned = self.num_rows  # of other rows that come, plan anew

    def close(self) -> None:
        """Keep what was learned."""
        self._learners.close()

    def _look_for_misfit(self, item: int | None) -> None:
        if item is not None:
            self._look_for_misfit_of(self._learners.of(item))

    def _look_for_misfit_of(self, mapped: Mapped | None) -> None:
        """Say so, and plan anew, where rows turn out to be others than the profile's."""
        learner = None if mapped is None else mapped.learner
        if learner is None or not learner.misfit or learner.is_told:
            return
        learner.is_told = self._is_due = True
        self._emit(ProfileMisfit(learner.fresh.workflow, learner.misfit))

    # --- what is chosen -------------------------------------------------------------------------

    @property
    def num_rows(self) -> int:
        """How many rows are known."""
        learner = self._learner
        if self._mapped is not None and learner is not None and learner.can_predict:
            return self._mapped.num_left
        return len(self._rows)

    @property
    def awaits_rows(self) -> bool:
        """Whether there are more rows, or may be, of those that would be looked at."""
        learner = self._learner
        if self._mapped is None or (learner is not None and learner.can_predict and learner.pauses):
            return False
        if self._mapped.num_rows is None:
            return True
        return self.num_rows < min(self._mapped.num_left, _MOST_ROWS)

    @property
    def has_news(self) -> bool:
        """Whether choosing again may come out otherwise."""
        if self._is_due:
            return True
        learner = self._learner
        growth = 2.0 if learner is not None and learner.can_predict else 1.25
        is_more = self.num_rows >= max(LEAST_ROWS, growth * self._num_planned)
        return is_more and self._num_planned < _MOST_ROWS

    def engine_started(self) -> None:
        """What one of them holds and costs is known from now on."""
        self._is_due |= self._lacks_engine

    def choose(self, rooms: Sequence[SimulatedRoom | None], requests: Iterable[Request]) -> Choice:
        """Which rows to have open at once.

        Args:
            rooms: The session's engines, those of one model each; `None` where nothing is known of
                them.
            requests: Those that it has or that stand ready: they tell how long texts are.
        """
        start_s = time.perf_counter()
        self._num_planned, self._is_due = self.num_rows, False
        self._coming = None
        later: LaterUse = {}
        learner = self._learner
        source: ScheduleSource
        if learner is not None and learner.can_predict:
            source = "profile"
            later = later_use(learner.rows)
            choice = self._choose_predicted(rooms, learner, is_hinted=bool(later))
        else:
            is_known = learner is not None and bool(learner.profiles)
            source = "declared calls and profile" if is_known else "declared calls"
            choice = self._choose_declared(rooms, requests)
        self.choice = choice
        if learner is not None:
            learner.expect(later if choice.compared else {}, is_gated=choice.policy is not ALL_OPEN)
        self._emit(
            ScheduleChosen(
                str(choice.policy),
                choice.gain,
                choice.predicted_s,
                time.perf_counter() - start_s,
                tuple((str(each.policy), each.seconds, each.gain) for each in choice.compared),
                source,
                tuple(map(asdict, choice.expected)),
            )
        )
        return choice

    def _choose_predicted(
        self, rooms: Sequence[SimulatedRoom | None], learner: Learner, *, is_hinted: bool
    ) -> Choice:
        found = predict(learner.rows, self._items_ahead(learner))
        if not learner.pauses:
            return self._choose(found, [each and _hinted(each, is_hinted) for each in rooms])
        return Choice(expected=expected_sites(found))  # they are parked, if at all

    def _choose(self, found: Forecast, rooms: Sequence[SimulatedRoom | None]) -> Choice:
        known = [each for each in rooms if each is not None]
        self._lacks_engine = not known or not all(rooms[engine] for engine in found.engines)
        if self._lacks_engine:
            return Choice(expected=expected_sites(found))
        first, *others = (each or known[0] for each in rooms)  # those unknown are not asked
        return choose_policy(found, replace(first, others=tuple(others)))

    def _choose_declared(
        self, rooms: Sequence[SimulatedRoom | None], requests: Iterable[Request]
    ) -> Choice:
        found = self._declared(requests)
        is_hinted = self._declares_all(found)
        choice = self._choose(found, [each and _hinted(each, is_hinted) for each in rooms])
        if choice.compared and is_hinted:
            sent = {self._questions[call] for call in self._sent if call in self._questions}
            self._coming = Coming(found, sent)
        return choice

    def _declares_all(self, found: Forecast) -> bool:
        """Whether no more calls come than were declared.

        Before a row has ended, those are believed who have made calls of what others will answer.
        """
        declares = None if self._learner is None else self._learner.declares
        if declares is None:
            return self._is_believed and any(call.inputs for row in found.rows for call in row)
        return declares

    @property
    def _learner(self) -> Learner | None:
        return None if self._mapped is None else self._mapped.learner

    def _items_ahead(self, learner: Learner) -> list[int]:
        """The rows that are open or will be, as many as are looked at."""
        assert self._mapped is not None
        calls = max(1.0, sum(len(row.calls) for row in learner.rows) / len(learner.rows))
        most = min(_MOST_ROWS, max(_ENOUGH_ROWS, int(_MOST_CALLS / calls)))
        items = sorted(self._mapped.open)[:most]
        num_more = min(most, self._mapped.num_left) - len(items)
        next_item = items[-1] + 1 if items else 0
        return [*items, *range(next_item, next_item + num_more)]

    def _declared(self, requests: Iterable[Request]) -> Forecast:
        """What the first rows have declared and is to be answered yet."""
        self._is_believed = not any(row.asks_late() for row in self._rows.values())
        self._questions = {}
        ids: dict[Node, int] = {}
        nodes: list[PlanNode] = []
        lengths: dict[int, int] = {}
        sites: dict[int, str] = {}
        num_characters = 0
        for item in sorted(self._rows)[:_MOST_ROWS]:
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
                lengths[planned.id] = self._length(site, turns[site] - 1, planned.max_tokens or 1)
                num_characters += _num_characters(node)
            if len(nodes) > _MOST_CALLS or num_characters > _MOST_CHARACTERS:
                break
        texts = text_lengths([_prompt(request) for request in islice(requests, _MOST_PROMPTS)])
        return forecast(
            LogicalPlan(nodes, ()),
            lambda node: lengths[node.id],
            texts,
            lambda node: sites[node.id],
            self._learners.engine,
        )

    def _length(self, site: str, turn: int, most: int) -> int:
        """How long an answer will be: as the like ones were, or else as long as it may be."""
        found = None if self._learner is None else self._learner.output_tokens(site, turn)
        return most if found is None else max(1, min(most, round(found)))


def _hinted(room: SimulatedRoom, is_hinted: bool) -> SimulatedRoom:
    return replace(room, drops_unused=room.drops_unused and is_hinted)


def _with_inputs(nodes: Iterable[Node]) -> set[Node]:
    found: set[Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += node.inputs
    return found


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
