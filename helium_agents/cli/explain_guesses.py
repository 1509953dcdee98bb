"""What guesses have won and cost in a traced run, in words, and what right ones could have won."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from helium_agents.cli.report import count
from helium_agents.diagnose.guesses import GuessedSite, OracleGap, guessed_by
from helium_agents.telemetry.progress import duration
from helium_agents.trace import TracedRun

_REASONS = {
    "not shared": "share=False: what equal calls come to is not one answer",
    "never alike": "its body changes its arguments, or cannot be ended",
    "nobody": "nobody guesses free text: give predict=",
    "nothing seen": "too little like it was seen",
    "not said": "predict= said nothing, or not in time",
    "no cost": "nobody knows what a step of the engine costs: calibrate it, or give a Budget(...)",
    "off": "guesses there did not pay",
    "improbable": "not probable enough, or too many others were tried",
    "long body": "the operator's own code takes too long to be run again so often",
    "not worth it": "what followed was not worth its cost",
}
"""By `WhyNoGuess`."""

_MOST_SITES = 3


def as_dict(gap: OracleGap | None) -> dict[str, Any] | None:
    """For JSON."""
    if gap is None:
        return None
    return {**asdict(gap), "won_s": gap.won_s, "possible_s": gap.possible_s}


def in_words(run: TracedRun, gap: OracleGap | None) -> str:
    """Some lines; empty where nothing might have been guessed."""
    lines = []
    if run.speculated:
        lines.append(_early(run))
    if gap is not None:
        lines += [_gap(gap), *_wrong(gap.sites), *_never(gap.sites)]
    return "\n".join(lines)


def _early(run: TracedRun) -> str:
    """What was computed early."""
    used = [each for each in run.speculated if each["is_used"]]
    saved_s = sum(each["saved_s"] for each in used)
    wasted_tokens = sum(each["wasted_tokens"] for each in run.speculated)
    num_wasted = len(run.speculated) - len(used)
    return (
        f"speculation: {count(len(used), 'call')} computed early, for {duration(saved_s)} before "
        f"they were asked; {num_wasted:,} for nothing ({count(wasted_tokens, 'token')})"
    )


def _gap(gap: OracleGap) -> str:
    rows, without = count(gap.num_rows, "row"), duration(gap.without_s)
    if not gap.possible_s:
        return f"  right guesses could win nothing of the {without} of {rows} together"
    return (
        f"  won: about {duration(gap.won_s)} of {duration(gap.possible_s)} that right guesses "
        f"could win\n  {rows} together: {without} without guesses, {duration(gap.taken_s)} as it "
        f"was, {duration(gap.right_s)} if all were right at once"
    )


def _wrong(sites: Sequence[GuessedSite]) -> Iterator[str]:
    """Where guesses were wrong."""
    num_wrong = sum(site.num_wrong for site in sites)
    num_guessed = num_wrong + sum(site.num_right for site in sites)
    if not num_guessed:
        return
    worst = sorted((site for site in sites if site.num_wrong), key=lambda site: -site.num_wrong)
    places = [
        f"{site.num_wrong:,} of {site.num_wrong + site.num_right:,} at {_place(site)} "
        f"(by {', '.join(map(guessed_by, site.sources))})"
        for site in worst[:_MOST_SITES]
    ]
    more = ["others"] * (len(worst) > _MOST_SITES)
    where = f": {'; '.join([*places, *more])}" if places else ""
    yield f"  wrong: {num_wrong:,} of {count(num_guessed, 'guessed call')}{where}"


def _never(sites: Sequence[GuessedSite]) -> Iterator[str]:
    """Where there were no guesses, or nothing came of them, and why."""
    silent = [site for site in sites if site.reasons]
    for site in silent[:_MOST_SITES]:
        most = Counter(site.reasons).most_common(2)
        reasons = [f"{_REASONS.get(why, why)} ({number:,})" for why, number in most]
        all_ = sum(site.reasons.values())
        if rest := all_ - sum(number for _, number in most):
            reasons.append(f"otherwise ({rest:,})")
        calls = count(site.num_calls, "call")
        yield f"  nothing early: {all_:,} of {calls} at {_place(site)}: {'; '.join(reasons)}"


def _place(site: GuessedSite) -> str:
    return f"{site.operator} ({site.begins!r})" if site.begins else site.operator
