"""The budget of speculation: which guesses are worth their cost, and when to make none."""

from __future__ import annotations

import math
from bisect import bisect
from collections import deque
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Final

from helium_agents.errors import SessionError
from helium_agents.optimizer.guesses import Guess
from helium_agents.optimizer.speculation_cost import Outlook

_PRIOR_GUESSES: Final = 4.0
"""What a predictor says of its own certainty counts as much as so many guesses that it made."""

_MOST_GUESSES: Final = 200.0
"""Of more guesses older ones count half."""

_SURE: Final = (0.5, 0.7, 0.85, 0.95)
"""Guesses of which a predictor is about as sure are judged together: between these."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be guessed.

    A guess is made where what it wins, times how probable it is at least, is more than what it
    costs, times how probable it is not. If it is right, what it takes from demanded calls would be
    taken from such calls later anyway: it costs only what more than usual of them are there for.

    Args:
        max_extra_tokens: Most tokens that are computed for wrong guesses, as a share of those that
            demanded calls need.
        caution: By how much a second that wrong guesses take from demanded calls counts more than
            one that right ones win.
        max_delay: Most by which guesses may delay calls for which nothing is guessed, as a share of
            the time that these take.
        confidence: With what probability a predictor is at least as often right as is assumed.
        least_probability: Guesses that are less probable are not made, whatever they win.
        window_tokens: Demanded tokens over which the share is held.
        first_tokens: So many demanded tokens are taken for granted, while there are fewer.
        trials: A call site is left alone once guesses there were worth less than nothing over so
            many trials, and tried again once in so many.
    """

    max_extra_tokens: float = 0.2
    caution: float = 1.0
    max_delay: float = 0.02
    confidence: float = 0.8
    least_probability: float = 0.3
    window_tokens: int = 100_000
    first_tokens: int = 1_000
    trials: int = 50

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise SessionError(f"Budget({name}={value!r}) must be a number, at least 0")
        if not 0 < self.confidence < 1:
            raise SessionError(f"Budget(confidence={self.confidence!r}) must be between 0 and 1")
        if self.trials < 1 or self.window_tokens < 1:
            raise SessionError(f"{self!r}: trials and window_tokens are at least 1")


class Posterior:
    """How often a predictor is right: a Beta distribution.

    Args:
        probability: What the predictor says itself.
    """

    __slots__ = ("right", "wrong")

    def __init__(self, probability: float) -> None:
        self.right = _PRIOR_GUESSES * probability
        self.wrong = _PRIOR_GUESSES * (1.0 - probability)

    def note(self, is_right: bool) -> None:
        """A guess was right, or wrong."""
        if self.right + self.wrong > _MOST_GUESSES:
            self.right, self.wrong = self.right / 2, self.wrong / 2
        if is_right:
            self.right += 1.0
        else:
            self.wrong += 1.0

    def at_least(self, deviations: float) -> float:
        """A lower limit, so many standard deviations below the mean; at least 0."""
        number = self.right + self.wrong
        mean = self.right / number
        return max(0.0, mean - deviations * math.sqrt(mean * (1.0 - mean) / (number + 1.0)))


@dataclass(frozen=True, slots=True, eq=False)
class Stake:
    """What a guess that is made may cost.

    Args:
        site: The call site of which the answer is guessed.
        outlook: What comes of it.
        tokens: That it is expected to waste.
    """

    site: str
    outlook: Outlook
    tokens: float


@dataclass(slots=True)
class _Site:
    """What guesses were worth at a call site, in seconds, the newest last."""

    worth_s: deque[float]
    is_off: bool = False
    num_left_out: int = 0

    def trial(self, worth_s: float) -> None:
        self.worth_s.append(worth_s)
        if self.is_off and worth_s > 0:
            self.worth_s.clear()
            self.is_off = False
        elif len(self.worth_s) == self.worth_s.maxlen and sum(self.worth_s) < 0:
            self.is_off = True


@dataclass(slots=True)
class _Share:
    """What wrong guesses may take, of something that there is; older parts of both fade.

    Args:
        most: The share that they may take.
        whole: What there was of it.
        taken: What wrong guesses took.
        staked: What open guesses may take.
    """

    most: float
    whole: float = 0.0
    taken: float = 0.0
    staked: float = 0.0

    def fade(self, kept: float) -> None:
        self.whole *= kept
        self.taken *= kept

    def left(self, least_whole: float = 0.0) -> float:
        return self.most * max(self.whole, least_whole) - self.taken - self.staked


class BudgetState:
    """What has come of a session's guesses, and so which are worth making.

    Args:
        budget: What is allowed.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._deviations = NormalDist().inv_cdf(budget.confidence)
        self._posteriors: dict[tuple[str, str, int], Posterior] = {}
        self._sites: dict[str, _Site] = {}
        self._tokens = _Share(budget.max_extra_tokens)
        self._outside = _Share(budget.max_delay)

    # --- whether to guess ----------------------------------------------------------------------

    def probability(self, site: str, guess: Guess) -> float:
        """How probable a guess is at least."""
        return self._posterior(site, guess).at_least(self._deviations)

    def worth(self, site: str, guess: Guess, outlook: Outlook, above: float = 1.0) -> Stake | None:
        """Whether to ask a call early; if so, `used` or `wasted` must follow once.

        Args:
            site: The call site of which the answer is guessed.
            guess: What is guessed.
            outlook: What comes of it.
            above: How probable the guesses are that it stands on.
        """
        if self.is_off(site):
            return None
        chance = self.probability(site, guess) * above
        lost_s = self.budget.caution * (outlook.cost_s + (self._price - 1.0) * outlook.outside_s)
        won_s = outlook.saved_s - self.budget.caution * self._price * outlook.excess_s
        expected_s = chance * won_s - (1.0 - chance) * lost_s
        if expected_s <= 0.0:
            self._trial(site, expected_s)
            return None
        tokens = (1.0 - chance) * outlook.tokens
        if chance < self.budget.least_probability or tokens > self.left_tokens:
            return None
        if outlook.outside_s > max(0.0, self._outside.left()):  # it may be wrong
            return None
        self._tokens.staked += tokens
        self._outside.staked += outlook.outside_s
        return Stake(site, outlook, tokens)

    def is_better_later(
        self, site: str, guess: Guess, outlook: Outlook, usual_s: float, above: float = 1.0
    ) -> bool:
        """Whether to wait until a call for which nothing is guessed has ended.

        While more of them than usual are there, each that ends is one less to be delayed; whoever
        guesses waits for the next of n the n-th part of what one takes.

        Args:
            site: As for `worth`.
            guess: As there.
            outlook: What comes of it now.
            usual_s: How long such a call takes.
            above: As there.
        """
        chance = self.probability(site, guess) * above
        spared_s = self.budget.caution * self._price * outlook.outside_s
        return outlook.excess_s > 0.0 and spared_s > chance * usual_s

    def is_off(self, site: str) -> bool:
        """Whether a call site is left alone, this time; asked once each time."""
        known = self._sites.get(site)
        if known is None or not known.is_off:
            return False
        known.num_left_out += 1
        return known.num_left_out % self.budget.trials != 0

    @property
    def left_tokens(self) -> float:
        """How many tokens more may be wasted now; what open guesses are expected to is taken off.

        Less than 0 where guesses were wrong more often than was expected.
        """
        return self._tokens.left(self.budget.first_tokens)

    @property
    def _price(self) -> float:
        """What a second of such calls is worth: the more, the less of it may still be taken."""
        left_s = self._outside.left()
        return self.budget.max_delay * self._outside.whole / left_s if left_s > 0 else 1.0

    # --- what came of it -----------------------------------------------------------------------

    def note(self, site: str, guess: Guess, is_right: bool) -> None:
        """The truth is known, once for each guess, whether anything was asked early or not."""
        self._posterior(site, guess).note(is_right)

    def demanded(self, num_tokens: float) -> None:
        """A demanded call needed so many tokens, guessed early or not."""
        kept = max(0.0, 1.0 - num_tokens / self.budget.window_tokens)
        self._tokens.fade(kept)
        self._outside.fade(kept)
        self._tokens.whole += num_tokens

    def outside(self, seconds: float) -> None:
        """Calls for which nothing is guessed took so long, together, while others guessed."""
        self._outside.whole += seconds

    def used(self, stake: Stake, saved_s: float) -> None:
        """A call that was asked early was demanded.

        Args:
            stake: What `worth` gave.
            saved_s: By how much earlier its answer was there.
        """
        self._settle(stake)
        # what they win while they are few is not saved up
        self._outside.taken = max(0.0, self._outside.taken + stake.outlook.excess_s)
        self._trial(stake.site, saved_s)

    def wasted(self, stake: Stake, num_tokens: float) -> None:
        """Nobody demanded a call that was asked early.

        Args:
            stake: What `worth` gave.
            num_tokens: That were computed for it.
        """
        self._settle(stake)
        outlook = stake.outlook
        share = min(1.0, num_tokens / outlook.tokens) if outlook.tokens else 1.0
        self._tokens.taken += num_tokens
        self._outside.taken += share * outlook.outside_s
        self._trial(stake.site, -self.budget.caution * outlook.cost_s * share)

    def _settle(self, stake: Stake) -> None:
        self._tokens.staked -= stake.tokens
        self._outside.staked -= stake.outlook.outside_s

    def _trial(self, site: str, worth_s: float) -> None:
        known = self._sites.get(site)
        if known is None:
            known = self._sites[site] = _Site(deque(maxlen=self.budget.trials))
        known.trial(worth_s)

    def _posterior(self, site: str, guess: Guess) -> Posterior:
        key = (site, guess.source, bisect(_SURE, guess.probability))
        found = self._posteriors.get(key)
        if found is None:
            found = self._posteriors[key] = Posterior(guess.probability)
        return found
