"""The learner: what the rows of one workflow ask, in this run and in earlier ones."""

from __future__ import annotations

from collections.abc import Sequence

from helium_agents.engines.engine import Completion, Request
from helium_agents.optimizer.coming import SPARE_SHARE
from helium_agents.optimizer.drift import Drift
from helium_agents.optimizer.guesses import Histogram
from helium_agents.optimizer.later_use import LaterUse
from helium_agents.optimizer.profile import MOST_ROWS, Profile, SeenRow, held_share
from helium_agents.runtime.learning.row_log import RowLog

LEAST_ROWS = 4
"""Fewer tell too little of the others: they may all be of one document."""

_LEAST_PAUSE_SHARE = 0.05
_LEAST_HELD_SHARE = 0.5


class Learner:
    """Learns a workflow's profile from what its rows ask, and says what is known of it.

    Args:
        known: What earlier runs have learned; `None` if there is nothing.

    Attributes:
        fresh: What this run has learned.
        is_told: Whether somebody was told of a misfit.
    """

    def __init__(self, known: Profile | None) -> None:
        self.fresh = Profile()
        self.known = known
        self._expects_hits = False  # rows are opened so that each finds what it has computed
        self._later_use: LaterUse = {}
        self.is_told = False
        self._drift = None if known is None else Drift(known)
        self._open: dict[int, RowLog] = {}
        self._num_begun = 0

    @property
    def misfit(self) -> str:
        """What of earlier runs does not fit this one, in words; empty where all does."""
        return "" if self._drift is None else self._drift.reason

    @property
    def profiles(self) -> list[Profile]:
        """What tells of the workflow's rows, what is known best first; empty if nothing does."""
        found = [self.fresh]
        if self.known is not None and not self.misfit:
            found.insert(0, self.known)
        return [each for each in found if each.num_rows >= LEAST_ROWS]

    @property
    def can_predict(self) -> bool:
        """Whether rows that have not begun are known by those that were seen, and only so."""
        profiles = self.profiles
        if not profiles or profiles[0].is_declared:
            return False
        return sum(len(profile.rows) for profile in profiles) >= LEAST_ROWS

    @property
    def declares(self) -> bool | None:
        """Whether rows make all of their calls before any is answered; `None` where none ended."""
        profiles = self.profiles or [self.fresh]
        return profiles[0].is_declared if profiles[0].num_rows else None

    @property
    def rows(self) -> Sequence[SeenRow]:
        """Rows that others will resemble, the newest."""
        rows = [row for profile in self.profiles for row in profile.rows]
        return rows[-MOST_ROWS:]

    @property
    def pauses(self) -> bool:
        """Whether rows pause between calls, and go on then where they had ended."""
        profiles = self.profiles
        if not profiles or profiles[0].pause_share < _LEAST_PAUSE_SHARE:
            return False
        return held_share(self.rows) >= _LEAST_HELD_SHARE

    def output_tokens(self, site: str, turn: int) -> float | None:
        """How long the answers of a call site are; `None` if too few were seen."""
        profiles = [self.fresh]
        if self.known is not None and not self.misfit:
            profiles.insert(0, self.known)
        for profile in profiles:
            found = profile.sites.get(site)
            if found is None:
                continue
            lengths = found.turn(turn).output_tokens
            if lengths.number < LEAST_ROWS:
                lengths = found.all_turns().output_tokens
            if lengths.number >= LEAST_ROWS:
                return lengths.mean
        return None

    def expect(self, later: LaterUse, *, is_gated: bool) -> None:
        """Rows are opened as was planned.

        Args:
            later: What of their calls is of use later; empty where rows say so themselves.
            is_gated: Whether few are open, so that each finds again what it has computed.
        """
        self._later_use, self._expects_hits = later, is_gated

    def used_tokens(self, item: int, request: Request) -> int | None:
        """How many of the first tokens of a call and its answer calls to come will begin with.

        Returns:
            `None` where that is not known, or it may be all of them.
        """
        row = self._open.get(item)
        place = None if row is None or not self._later_use else row.place(request)
        share = None if place is None else self._later_use.get(place)
        if share is None:
            return None
        return round(len(request.prompt_token_ids) * share * (1 + SPARE_SHARE))

    @property
    def histograms(self) -> Sequence[Histogram]:
        """How often which closed answer came: in this run, and in earlier ones, if these fit."""
        if self.known is None or self.misfit:
            return (self.fresh.answers,)
        return self.fresh.answers, self.known.answers

    def learned(self) -> Profile:
        """All that is known now: this run's alone, if it does not fit to earlier ones."""
        if self.known is None or (self.misfit and self.fresh.num_rows >= LEAST_ROWS):
            return self.fresh
        found = Profile(self.known.workflow, self.known.model)
        found.add_all(self.known)
        found.add_all(self.fresh)
        return found

    def ask(self, item: int, request: Request, site: str, now_s: float, engine: int = 0) -> None:
        """A call of a row is asked."""
        row = self._open.get(item)
        if row is None:
            row = self._open[item] = RowLog(is_kept=_is_kept(self._num_begun))
            self._num_begun += 1
            if self._drift is not None:
                self._drift.row_began(item)
        call = row.ask(request, site, now_s, engine)
        if call.pause_s is not None:
            self.fresh.site(site).pause_s.add(call.pause_s)
        num_tokens = len(request.prompt_token_ids)
        self.fresh.site(site).turn(call.turn).prompt_tokens.add(num_tokens)
        if self._drift is not None:
            self._drift.call_began(item, site, call.turn, num_tokens)

    def answer(
        self,
        item: int,
        request: Request,
        completion: Completion | None,
        sent_s: float | None,
        now_s: float,
    ) -> None:
        """A call of a row has ended; with no completion it failed, or was cancelled."""
        row = self._open.get(item)
        call = None if row is None else row.end(request, completion, sent_s, now_s)
        if call is None:
            return
        num_tokens = None if completion is None else call.output_tokens
        if num_tokens is not None:
            self.fresh.site(call.site).turn(call.turn).output_tokens.add(num_tokens)
        if self._drift is not None:
            self._drift.call_ended(item, call.site, call.turn, num_tokens)
            if self._expects_hits and completion is not None and call.num_before:
                self._drift.hit(call.held_tokens, completion.cached_tokens)

    def leave(self, item: int) -> None:
        """A row teaches nothing more, since it has calls that it need not ask."""
        row = self._open.get(item)
        if row is not None:
            row.is_partial = True

    def end(self, item: int, *, is_declared: bool) -> bool:
        """A row has ended; whether it has taught anything.

        Args:
            item: The row.
            is_declared: Whether all of its calls were made before any was answered.
        """
        row = self._open.pop(item, None)
        if row is None:
            return False
        if self._drift is not None:
            is_whole = row.num_calls and not row.is_partial
            self._drift.row_ended(item, row.num_calls if is_whole else None)
        if not row.num_calls or row.is_partial:
            return False
        self.fresh.calls.add(row.num_calls)
        self.fresh.declared_rows += is_declared
        self.fresh.pause_s += row.pause_s
        self.fresh.service_s += row.service_s
        for name, number in row.num_by_site.items():
            if number:
                self.fresh.site(name).calls_per_row.add(number)
        seen = row.seen()
        if seen is not None:
            self.fresh.rows = [*self.fresh.rows, seen][-MOST_ROWS:]
        return True


def _is_kept(number: int) -> bool:
    """Whether a row is kept whole: the first few, and as many after 64, 256, 1,024, and so on.

    Neighbours, since these may have documents in common.
    """
    start = 0
    while number >= max(4 * MOST_ROWS, 4 * start):
        start = max(4 * MOST_ROWS, 4 * start)
    return number - start < MOST_ROWS
