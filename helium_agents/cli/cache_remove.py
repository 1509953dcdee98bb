"""`helium cache prune` and `helium cache clear`: making a memo smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from helium_agents.cli.cache_entries import (
    Selection,
    entries,
    operator_option,
    row_options,
    select,
    with_aliases,
)
from helium_agents.cli.cache_store import (
    confirm,
    count_entries,
    memo_option,
    reading,
    writing,
    yes_option,
)
from helium_agents.cli.options import debug_option, examples, json_option
from helium_agents.cli.units import age, duration, num_bytes, size
from helium_agents.errors import InputError


@click.command(
    epilog=examples(
        "helium cache prune --memo memo --older-than 30d",
        "helium cache prune --memo memo --max-bytes 1GiB --yes",
    )
)
@memo_option
@click.option(
    "--older-than",
    "older_than_s",
    type=duration,
    metavar="DURATION",
    help="Remove what is older: 30d, 12h.",
)
@click.option(
    "--max-bytes",
    type=num_bytes,
    metavar="SIZE",
    help="Then remove what was used longest ago until the rest has that size: 1GiB, 500MB.",
)
@operator_option
@yes_option
@json_option
@debug_option
def prune(
    memo: Path, older_than_s: float | None, max_bytes: int | None, operator: str | None,
    yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Remove what is old, or too much.

    With --operator, only the operator's calls go, and --max-bytes bounds what they hold.
    """
    what = []
    if older_than_s is not None:
        what.append(f"is older than {age(older_than_s)}")
    if max_bytes is not None:
        what.append(f"exceeds {size(max_bytes)}")
    if not what:
        raise InputError("say what is to go: --older-than 30d, --max-bytes 1GiB, or both")
    among = None
    with reading(memo) as store:
        before = store.stats()
        if operator is not None:
            selected = entries(store, Selection(operator))
            among = with_aliases(store, (entry.key for entry, _ in selected))
    whose = f" of the calls of {operator}" if operator else ""
    if confirm(f"Remove from {memo} what{whose} {' or '.join(what)}?", yes=yes):
        with writing(memo) as store:
            num_removed = store.prune(older_than_s=older_than_s, max_bytes=max_bytes, among=among)
            freed_bytes = before.num_bytes - store.stats().num_bytes
        _report(memo, num_removed, freed_bytes, as_json=as_json)


@click.command(
    epilog=examples(
        "helium cache clear --memo memo",
        "helium cache clear --memo memo --operator expert --yes",
        "helium cache clear --memo memo --workflow flow.py:answer --input rows.jsonl --row 3",
    )
)
@memo_option
@operator_option
@row_options
@yes_option
@json_option
@debug_option
def clear(memo: Path, yes: bool, as_json: bool, **wanted: Any) -> None:
    """Remove what a memo holds: all, an operator's calls, or what was computed for a row.

    A call that several rows made was computed for one of them, and goes with that one. The
    directory stays.
    """
    selection = select(**wanted)
    keys: set[bytes] = set()
    with reading(memo) as store:
        before = store.stats()
        if not selection.is_everything:
            keys = with_aliases(store, (entry.key for entry, _ in entries(store, selection)))
    number = before.num_entries if selection.is_everything else len(keys)
    if confirm(f"Remove {count_entries(number)} from {memo}?", yes=yes):
        with writing(memo) as store:
            num_removed = store.clear() if selection.is_everything else store.delete(keys)
            freed_bytes = before.num_bytes - store.stats().num_bytes
        _report(memo, num_removed, freed_bytes, as_json=as_json)


def _report(memo: Path, num_removed: int, freed_bytes: int, *, as_json: bool) -> None:
    if as_json:
        fields = {"memo": str(memo), "removed": num_removed, "freed_bytes": freed_bytes}
        click.echo(json.dumps(fields))
    else:
        click.echo(f"Removed {count_entries(num_removed)} ({size(freed_bytes)}) from {memo}.")
