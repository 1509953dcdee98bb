"""helium_agents with a profile that is wrong: it was learned from other rows than those that come.

It must cost next to nothing: what does not fit is noticed, and everything is open again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from benchmarks.systems.plain import PlainOurs
from helium_agents.optimizer.distribution import Distribution
from helium_agents.optimizer.profile import Profile, Runs, SeenRow
from helium_agents.runtime.learning.profiles import decode_profile, encode_profile


class WronglyTaught(PlainOurs):
    """Knows a profile that does not fit.

    Args:
        name: What it is called in tables.
        change: Makes a profile wrong.
    """

    def __init__(self, name: str, change: Callable[[Profile], None]) -> None:
        super().__init__(name, num_runs=1)
        self._change = change

    def taught(self, profiles: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """The profiles, changed."""
        found: dict[bytes, bytes] = {}
        for key, data in profiles.items():
            profile = decode_profile(data)
            assert profile is not None
            self._change(profile)
            found[key] = encode_profile(profile)
        return found


def change_answers(profile: Profile, factor: float) -> None:
    """Answers have so many times the tokens that they will have."""
    for site in profile.sites.values():
        for turn in site.turns:
            turn.output_tokens = _scaled(turn.output_tokens, factor)
    profile.rows = [
        replace(
            row,
            calls=tuple(
                replace(call, output_tokens=max(1, round(call.output_tokens * factor)))
                for call in row.calls
            ),
        )
        for row in profile.rows
    ]


def shorten_loops(profile: Profile) -> None:
    """Rows end after a third of the calls that they will make."""
    profile.calls = _scaled(profile.calls, 1 / 3)
    for site in profile.sites.values():
        site.calls_per_row = _scaled(site.calls_per_row, 1 / 3)
        site.turns = site.turns[: max(1, len(site.turns) // 3)]
    profile.rows = [
        replace(row, calls=row.calls[: max(1, len(row.calls) // 3)]) for row in profile.rows
    ]


def change_documents(profile: Profile, factor: float) -> None:
    """Prompts have so many times the tokens that they will have; at most as many."""
    for site in profile.sites.values():
        for turn in site.turns:
            turn.prompt_tokens = _scaled(turn.prompt_tokens, factor)
    profile.rows = [_with_less(row, factor) for row in profile.rows]


def _with_less(row: SeenRow, factor: float) -> SeenRow:
    def cut(runs: Runs) -> Runs:
        return tuple((start, start + max(1, round((end - start) * factor))) for start, end in runs)

    calls = [
        replace(
            call,
            prompt_tokens=round(call.prompt_tokens * factor),
            prompt=cut(call.prompt),
            answer=(),
        )
        for call in row.calls
    ]
    return replace(row, calls=tuple(calls))


def _scaled(values: Distribution, factor: float) -> Distribution:
    shift = round(4 * math.log2(factor))
    return Distribution(
        values.number,
        values.total * factor,
        values.squares * factor**2,
        values.least * factor,
        values.most * factor,
        {interval + shift: count for interval, count in values.counts.items()},
    )


SYSTEMS = (
    WronglyTaught("wrong-long-answers", lambda profile: change_answers(profile, 3.0)),
    WronglyTaught("wrong-short-answers", lambda profile: change_answers(profile, 1 / 3)),
    WronglyTaught("wrong-loops", shorten_loops),
    WronglyTaught("wrong-documents", lambda profile: change_documents(profile, 0.4)),
)
