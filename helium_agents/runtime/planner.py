"""The planner: knows what rows will ask, and which of them to have open at once.

What a row will ask is known where it declares its calls before it awaits any, and asks all it can;
of others it is known from a profile, which earlier runs have left or the first rows of this one
make. Rows that are known can be simulated before they run. That is done when a request stands ready
and the engine is known, again each time a quarter more rows are known, or they turn out to be
others than expected; and on the first rows only where there are many: what fits into a KV cache
does not depend on how many wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import islice

from helium_agents.engines.engine import Completion, Request
from helium_agents.graph.node import Node
from helium_agents.optimizer.choose_policy import Choice, choose_policy
from helium_agents.optimizer.expected import expected_sites
from helium_agents.optimizer.forecast import Forecast
from helium_agents.optimizer.guesses import Histogram
from helium_agents.optimizer.later_use import LaterUse, later_use
from helium_agents.optimizer.policy import ALL_OPEN
from helium_agents.optimizer.predict import predict
from helium_agents.optimizer.simulate import SimulatedRoom
from helium_agents.runtime.declared_rows import DeclaredRows
from helium_agents.runtime.learning.learner import LEAST_ROWS, Learner
from helium_agents.runtime.learning.learners import Learners, Mapped
from helium_agents.telemetry.events import Observer, ProfileMisfit, ScheduleChosen, ScheduleSource

_MOST_ROWS, _MOST_CALLS = 128, 1024
"""So much is looked at, in a tenth of a second or two: the event loop waits for it."""

_MOST_PROMPTS = 64
"""With more it is not seen any better how long texts are."""

_ENOUGH_ROWS = 16
"""With so many seen it is chosen anew."""


class Planner:
    """What is known of the rows that are open, and will be.

    Attributes:
        choice: The last choice.
        most_prompts: How many prompts it looks at.
    """

    most_prompts = _MOST_PROMPTS

    def __init__(self, emit: Observer, learners: Learners) -> None:
        self.choice = Choice()
        self._emit = emit
        self._learners = learners
        self._declared = DeclaredRows(learners)
        self._mapped: Mapped | None = None  # of the row that began last
        self._num_planned = 0
        self._is_due = False
        self._lacks_engine = False  # nothing is known of one that rows will ask

    def histograms(self, item: int) -> Sequence[Histogram]:
        """How often which closed answer came in rows like an open one: in this run, and before."""
        return self._learners.histograms(item)

    # --- what happens ---------------------------------------------------------------------------

    def begin(self, item: int, mapped: Mapped) -> None:
        """A row begins."""
        self._learners.begin(item, mapped)
        self._mapped = mapped

    def declare(self, node: Node) -> None:
        """A call of a row was made."""
        self._declared.declare(node)

    def ask(self, request: Request, now_s: float) -> None:
        """A call stands ready."""
        self._learners.ask(request, now_s)
        self._look_for_misfit(request.item)

    def send(self, request: Request) -> int | None:
        """A request is sent. How many of its first tokens calls to come will begin with.

        Returns:
            `None` where that is not known, or it may be all of them.
        """
        if not self._declared.is_expected(request):
            return self._learners.used_tokens(request)
        return self._declared.send(request)

    def answer(
        self, request: Request, completion: Completion | None, sent_s: float | None, now_s: float
    ) -> None:
        """A call has ended; with no completion it failed, or was cancelled."""
        self._learners.answer(request, completion, sent_s, now_s)
        self._look_for_misfit(request.item)
        if request.item is not None:
            self._is_due |= self._declared.answer(request.item)

    def remembered(self, item: int, is_of_this_run: bool) -> None:
        """A call of a row was answered from the memo; whether this run had computed it."""
        self._learners.remembered(item, is_of_this_run)

    def end(self, item: int) -> None:
        """A row has ended."""
        mapped = self._learners.of(item)
        self._learners.end(item, is_declared=self._declared.end(item))
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
        return len(self._declared)

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
        later: LaterUse = {}
        learner = self._learner
        source: ScheduleSource
        if learner is not None and learner.can_predict:
            source = "profile"
            self._declared.expect(None)
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
                choice.why_not_compared,
            )
        )
        return choice

    def _choose_predicted(
        self, rooms: Sequence[SimulatedRoom | None], learner: Learner, *, is_hinted: bool
    ) -> Choice:
        found = predict(learner.rows, self._items_ahead(learner))
        if not learner.pauses:
            return self._choose(found, [each and _hinted(each, is_hinted) for each in rooms])
        return Choice(expected=expected_sites(found), why_not_compared="rows pause")

    def _choose(self, found: Forecast, rooms: Sequence[SimulatedRoom | None]) -> Choice:
        known = [each for each in rooms if each is not None]
        self._lacks_engine = not known or not all(rooms[engine] for engine in found.engines)
        if self._lacks_engine:
            return Choice(expected=expected_sites(found), why_not_compared="engine unknown")
        first, *others = (each or known[0] for each in rooms)  # those unknown are not asked
        return choose_policy(found, replace(first, others=tuple(others)))

    def _choose_declared(
        self, rooms: Sequence[SimulatedRoom | None], requests: Iterable[Request]
    ) -> Choice:
        few = islice(requests, _MOST_PROMPTS)
        found = self._declared.forecast(few, self._learner, _MOST_ROWS, _MOST_CALLS)
        is_hinted = self._declared.are_all(found, self._learner)
        choice = self._choose(found, [each and _hinted(each, is_hinted) for each in rooms])
        if choice.compared and is_hinted:
            self._declared.expect(found)
        return choice

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


def _hinted(room: SimulatedRoom, is_hinted: bool) -> SimulatedRoom:
    return replace(room, drops_unused=room.drops_unused and is_hinted)
