"""Why a call is not in a memo: the nearest stored call, and in what it differs.

A key only says "no". This looks through the provenance of what is stored for the call that comes
nearest, and names the cause in the words of whoever wrote the program. Pure functions: who calls
them reads the memo.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from helium_agents.diagnose.differences import Difference, changed, differences
from helium_agents.diagnose.provenance import Component, Provenance

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
        provenance: What it asked.
    """

    key: bytes
    age_s: float
    provenance: Provenance


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

    asked: Provenance
    cause: Cause
    reason: str
    nearest: Stored | None = None
    differences: tuple[Difference, ...] = ()


def explain_misses(
    asked: Sequence[Provenance], stored: Iterable[Stored], *, ttl_s: float | None = None
) -> list[Miss]:
    """Why calls miss in a memo that holds some other calls, of which it keeps only the nearest.

    Args:
        asked: The calls that missed.
        stored: What the memo holds, expired entries too; of equally near ones the first counts.
        ttl_s: How long answers live for the program that missed; `None`: for ever.
    """
    searches = [_Search(call, call.components()) for call in asked]
    for call in stored:
        components = call.provenance.components()
        for search in searches:
            if call.provenance.kind == search.asked.kind:
                search.offer(call, components)
    return [search.result(ttl_s) for search in searches]


@dataclass(slots=True)
class _Search:
    """The search for the stored call that is nearest to one that missed."""

    asked: Provenance
    components: dict[str, Component]
    nearest: Stored | None = None
    distance: float = inf
    has_row: bool = False

    def offer(self, stored: Stored, components: dict[str, Component]) -> None:
        """Consider a stored call.

        Its distance is the number of components that differ, of which another operator counts four,
        and texts up to two, the fewer words they have in common, or hardly where they only moved.
        Another caller or another row is no difference, but makes it less likely that this is the
        call that a person has in mind.
        """
        call, asked = stored.provenance, self.asked
        self.has_row = self.has_row or call.row == asked.row
        distance = (call.caller != asked.caller) + 0.5 * (call.row != asked.row)
        for name, old, new in changed(components, self.components):
            if not name.startswith(("message", "argument")):
                distance += 4 if name == "operator" else 1
            elif old in self.components.values() or new in components.values():
                distance += 0.1
            else:
                distance += 2 - likeness(old.text, new.text)
            if distance >= self.distance:
                return
        self.nearest, self.distance = stored, distance

    def result(self, ttl_s: float | None) -> Miss:
        """Why the call missed."""
        asked, nearest = self.asked, self.nearest
        if asked.is_drawn:
            return Miss(asked, "draw", _DRAW)
        if not asked.is_shared:
            return Miss(asked, "not shared", _NOT_SHARED)
        if nearest is None:
            name = "a model" if asked.kind == "llm" else asked.settings["operator"].text
            return Miss(asked, "nothing stored", f"the memo holds no call of {name} yet")
        found = differences(nearest.provenance, asked)
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
        names = (each.field for each in found)
        listed = ", ".join(name if name.startswith("a ") else f"the {name}" for name in names)
        verb = "differs" if len(found) == 1 else "differ"
        return "differs", f"{listed} {verb} from the nearest stored call{_note(found)}"


def _note(found: tuple[Difference, ...]) -> str:
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


def likeness(first: str, second: str) -> float:
    """The share of the words of two texts that both have, from 0 to 1."""
    words, others = set(first.split()), set(second.split())
    num_words = len(words) + len(others)
    return 2 * len(words & others) / num_words if num_words else 1.0
