"""`helium cache profiles`: what a memo's runs have learned of workflows, and forgetting it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helium_agents.cli.cache_memo import cache_command, reading, tell, writing
from helium_agents.cli.report import columns
from helium_agents.cli.units import size
from helium_agents.errors import InputError

if TYPE_CHECKING:
    from helium_agents.optimizer.distribution import Distribution
    from helium_agents.optimizer.profile import Profile

_SHORT_KEY = 12


@cache_command(
    "helium cache profiles --memo memo", "helium cache profiles --memo memo --forget 3f2ab6c0d1e2"
)
@click.option(
    "--forget",
    metavar="KEY",
    help="Forget the profile whose key begins so; `all` forgets every one.",
)
def profiles(memo: Path, forget: str | None, as_json: bool) -> None:
    """Say what runs have learned of workflows: calls of a row, lengths, pauses.

    The first run of a workflow learns, and the next ones are planned by it. Of each call site: how
    often rows call it, then the tokens of prompts and answers and the seconds between calls, each
    as the median, what nine in ten are below, and the most.
    """
    from helium_agents.runtime.learning.profiles import decode_profile

    if forget is not None:
        _forget(memo, forget, as_json=as_json)
        return
    with reading(memo) as store:
        found = store.profiles()
    read = {key.hex(): (decode_profile(data), len(data)) for key, data in found.items()}
    texts = [_text(key, profile, length) for key, (profile, length) in read.items()]
    tell(
        memo,
        "\n\n".join(texts) or "Nothing was learned yet: a run with --memo learns.",
        as_json=as_json,
        profiles=[_as_dict(key, profile, length) for key, (profile, length) in read.items()],
    )


def _forget(memo: Path, prefix: str, *, as_json: bool) -> None:
    with reading(memo) as store:
        every = store.profiles()
    doomed = [key for key in every if prefix == "all" or key.hex().startswith(prefix.lower())]
    if not prefix or (not doomed and prefix != "all"):
        raise InputError(f"no profile's key begins with {prefix!r}: see helium cache profiles")
    with writing(memo) as store:
        for key in doomed:
            store.put_profile(key, b"")
    noun = "profile" if len(doomed) == 1 else "profiles"
    tell(memo, f"Forgot {len(doomed)} {noun} of {memo}.", as_json=as_json, forgotten=len(doomed))


def _text(key: str, profile: Profile | None, length: int) -> str:
    if profile is None:
        return f"{key[:_SHORT_KEY]}  of another version of helium_agents, {size(length)}"
    how = "declared before any is answered" if profile.is_declared else "each asked in its turn"
    lines = [["", "calls a row", "prompt tokens", "answer tokens", "pause in s"]]
    for name, site in profile.sites.items():
        turns = site.all_turns()
        lines.append(
            [
                name,
                _shown(site.calls_per_row),
                _shown(turns.prompt_tokens),
                _shown(turns.output_tokens),
                _shown(site.pause_s, digits=2),
            ]
        )
    return (
        f"{key[:_SHORT_KEY]}  {profile.workflow} on {profile.model}, {size(length)}\n"
        f"rows: {profile.num_rows}, calls a row: {_shown(profile.calls)}, {how}; between calls "
        f"{profile.pause_share:.0%} of the time\n{columns(lines)}"
    )


def _shown(values: Distribution, digits: int = 0) -> str:
    if not values.number:
        return "-"
    each = (values.quantile(0.5), values.quantile(0.9), values.most)
    return " / ".join(f"{value:.{digits}f}" for value in each)


def _as_dict(key: str, profile: Profile | None, length: int) -> dict[str, Any]:
    if profile is None:
        return {"key": key, "bytes": length, "workflow": None}
    sites: dict[str, Any] = {}
    for name, site in profile.sites.items():
        turns = site.all_turns()
        sites[name] = {
            "calls_per_row": _numbers(site.calls_per_row),
            "prompt_tokens": _numbers(turns.prompt_tokens),
            "output_tokens": _numbers(turns.output_tokens),
            "pause_s": _numbers(site.pause_s),
        }
    return {
        "key": key,
        "bytes": length,
        "workflow": profile.workflow,
        "model": profile.model,
        "rows": profile.num_rows,
        "is_declared": profile.is_declared,
        "pause_share": round(profile.pause_share, 4),
        "calls": _numbers(profile.calls),
        "sites": sites,
    }


def _numbers(values: Distribution) -> dict[str, float] | None:
    if not values.number:
        return None
    return {
        "number": values.number,
        "mean": values.mean,
        "p50": values.quantile(0.5),
        "p90": values.quantile(0.9),
        "least": values.least,
        "most": values.most,
    }
