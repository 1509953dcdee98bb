"""Why a call is not in a memo: the nearest stored call, and in what it differs.

A key only says "no". This looks through the facts of what is stored for the call that comes
nearest, and names the cause in the words of whoever wrote the program. Pure functions: who calls
them reads the memo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from itertools import count, zip_longest
from math import inf
from typing import Final, Literal

from helium_agents.runtime.differences import (
    Difference,
    Likeness,
    differences,
    likeness,
    word_likeness,
)
from helium_agents.runtime.facts import Argument, Facts, LlmFacts, Message, OperatorFacts

_NUM_FINALISTS: Final = 16

Cause = Literal[
    "draw", "not shared", "nothing stored", "never run", "expired", "unusable", "differs"
]
"""Why a call misses; the explanation of each is in `Miss.reason`."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored call.

    Args:
        key: Its entry's key.
        age_s: Seconds since it was stored.
        facts: What it asked.
    """

    key: bytes
    age_s: float
    facts: Facts


@dataclass(frozen=True, slots=True)
class Miss:
    """Why a call missed.

    Args:
        asked: What it asked.
        cause: In a word.
        reason: In a sentence.
        nearest: The stored call that comes nearest, if any does.
        differences: In what that one differs.
    """

    asked: Facts
    cause: Cause
    reason: str
    nearest: Stored | None = None
    differences: tuple[Difference, ...] = ()


def explain_miss(asked: Facts, stored: Iterable[Stored], *, ttl_s: float | None = None) -> Miss:
    """Why a call misses in a memo that holds some other calls.

    Args:
        asked: The call that missed.
        stored: What the memo holds, expired entries too.
        ttl_s: How long answers live for the program that missed; `None`: for ever.
    """
    return explain_misses([asked], stored, ttl_s=ttl_s)[0]


def explain_misses(
    asked: Sequence[Facts], stored: Iterable[Stored], *, ttl_s: float | None = None
) -> list[Miss]:
    """The same for several calls, going through what is stored once; see `explain_miss`."""
    searches = [_Search(facts) for facts in asked]
    for call in stored:
        for search in searches:
            search.offer(call)
    return [search.result(ttl_s) for search in searches]


@dataclass(slots=True)
class _Search:
    """The search for the stored calls nearest to one that missed, in bounded memory."""

    asked: Facts
    has_row: bool = False
    _best: list[tuple[float, int, Stored]] = field(default_factory=list)  # a heap, farthest first
    _order: count[int] = field(default_factory=count)

    def offer(self, stored: Stored) -> None:
        """Consider a stored call."""
        if stored.facts.kind != self.asked.kind:
            return
        self.has_row = self.has_row or stored.facts.row == self.asked.row
        limit = -self._best[0][0] if len(self._best) == _NUM_FINALISTS else inf
        distance = _distance(stored.facts, self.asked, likeness, limit)
        if distance < limit:  # of equally near ones the first, since the newest come first
            push = heappush if limit == inf else heappushpop
            push(self._best, (-distance, -next(self._order), stored))

    def result(self, ttl_s: float | None) -> Miss:
        """Why the call missed."""
        asked = self.asked
        if asked.is_drawn:
            return Miss(asked, "draw", _DRAW)
        if not asked.is_shared:
            return Miss(asked, "not shared", _NOT_SHARED)
        if not self._best:
            return Miss(asked, "nothing stored", f"the memo holds no call of {_name(asked)} yet")
        finalists = (stored for _, _, stored in sorted(self._best, reverse=True))
        nearest = min(finalists, key=lambda it: _distance(it.facts, asked, word_likeness))
        found = differences(nearest.facts, asked)
        cause, reason = self._explain(nearest, found, ttl_s)
        return Miss(asked, cause, reason, nearest, found)

    def _explain(
        self, nearest: Stored, found: tuple[Difference, ...], ttl_s: float | None
    ) -> tuple[Cause, str]:
        if not found:
            is_expired = ttl_s is not None and abs(nearest.age_s) > ttl_s
            return ("expired", _EXPIRED) if is_expired else ("unusable", _UNUSABLE)
        is_new_row = self.asked.row is not None and not self.has_row
        if is_new_row and any(each.is_content for each in found):
            return "never run", _NEVER_RUN
        fields = ", ".join(_named(each) for each in found)
        verb = "differs" if len(found) == 1 else "differ"
        return "differs", f"{fields} {verb} from the nearest stored call{self._note(found)}"

    def _note(self, found: tuple[Difference, ...]) -> str:
        if [each.field for each in found] != ["max_tokens"]:
            return ""
        stored, asked = int(found[0].stored), int(found[0].asked)
        if asked > stored:
            return f", whose answer was cut off at {stored} tokens"
        return ", whose longer answer could not be cut exactly"


_DRAW: Final = (
    "it is an unseeded sample, or depends on one: a draw is fresh in every run and never "
    "remembered; give it a seed= or temperature=0"
)
_NOT_SHARED: Final = "it was asked with share=False, so it is neither looked up nor remembered"
_EXPIRED: Final = "an equal call is stored, but its answer is older than the time to live"
_UNUSABLE: Final = (
    "an equal call is stored, but its answer cannot be used: it is damaged, or holds a value of a "
    "class that has changed"
)
_NEVER_RUN: Final = (
    "no answer of this row is stored: it was never run, its answers were removed, or the row has "
    "changed since (the nearest call is another row's)"
)


def _named(difference: Difference) -> str:
    name = difference.field
    return name if name.startswith("a ") else f"the {name}"


def _name(facts: Facts) -> str:
    return facts.identity if isinstance(facts, OperatorFacts) else "a model"


# --- distances -----------------------------------------------------------------------------------


def _distance(stored: Facts, asked: Facts, alike: Likeness, limit: float = inf) -> float:
    """How far a stored call is from the asked one: the number of fields that differ, roughly.

    Another caller or another row is no difference, but makes it less likely that this is the call
    that a person has in mind. Two texts count up to twice, the less they are alike; they are
    compared only where the distance is less than the limit without that.
    """
    distance = (stored.caller != asked.caller) * 1.0 + (stored.row != asked.row) * 0.5
    if isinstance(stored, LlmFacts) and isinstance(asked, LlmFacts):
        distance += _num_settings(stored, asked)
        texts = _texts(stored.messages, asked.messages)
    elif isinstance(stored, OperatorFacts) and isinstance(asked, OperatorFacts):
        distance += 4.0 * (stored.identity != asked.identity) + (stored.version != asked.version)
        texts = _argument_texts(stored.arguments, asked.arguments)
    else:
        return inf
    distance += len(texts)
    if distance < limit:
        distance += sum(1.0 - alike(first, second) for first, second in texts)
    return distance


def _num_settings(stored: LlmFacts, asked: LlmFacts) -> int:
    """How many of the fields differ that are not what the call is about."""
    number = (stored.model.identity != asked.model.identity) + (stored.schema != asked.schema)
    if stored.sampling != asked.sampling:
        names = stored.sampling.keys() | asked.sampling.keys()
        number += sum(stored.sampling.get(name) != asked.sampling.get(name) for name in names)
    return number


def _texts(stored: Sequence[Message], asked: Sequence[Message]) -> list[tuple[str, str]]:
    """The messages that differ, in pairs."""
    if stored == asked:
        return []
    if len(stored) == len(asked) > 1 and sorted(stored) == sorted(asked):
        return [("", "")]
    pairs = zip_longest(stored, asked, fillvalue=Message("", ""))
    return [(old.text, new.text) for old, new in pairs if old != new]


def _argument_texts(
    stored: Mapping[str, Argument], asked: Mapping[str, Argument]
) -> list[tuple[str, str]]:
    """The arguments that differ, in pairs."""
    none = Argument("", "")
    pairs = [(stored.get(it, none), asked.get(it, none)) for it in {**stored, **asked}]
    return [(old.text, new.text) for old, new in pairs if old.digest != new.digest]
