"""`helium cache prune` and `helium cache clear`: making a memo smaller."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from helium_agents.memo.store import ManagedStore


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

    With --operator, --max-bytes bounds what the operator's calls hold, and the oldest go first.
    """
    if older_than_s is None and max_bytes is None:
        raise InputError("say what is to go: --older-than 30d, --max-bytes 1GiB, or both")
    with reading(memo) as store:
        before = store.stats()
    if not confirm(_question(memo, older_than_s, max_bytes, operator), yes=yes):
        click.echo("Nothing was removed.")
        return
    with writing(memo) as store:
        if operator is None:
            num_removed = store.prune(older_than_s=older_than_s, max_bytes=max_bytes)
        else:
            doomed = _doomed(store, Selection(operator), older_than_s, max_bytes)
            num_removed = store.delete(with_aliases(store, doomed))
        after = store.stats()
    _report(memo, num_removed, before.num_bytes - after.num_bytes, as_json=as_json)


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
    if not confirm(f"Remove {count_entries(number)} from {memo}?", yes=yes):
        click.echo("Nothing was removed.")
        return
    with writing(memo) as store:
        num_removed = store.clear() if selection.is_everything else store.delete(keys)
        after = store.stats()
    _report(memo, num_removed, before.num_bytes - after.num_bytes, as_json=as_json)


def _doomed(
    store: ManagedStore, selection: Selection, older_than_s: float | None, max_bytes: int | None
) -> Iterator[bytes]:
    """The selected entries that are old or, from the newest on, more than the bound."""
    now_s, held_bytes = time.time(), 0
    for entry, _ in entries(store, selection):
        if older_than_s is not None and abs(now_s - entry.created_s) > older_than_s:
            yield entry.key
            continue
        held_bytes += entry.num_bytes
        if max_bytes is not None and held_bytes > max_bytes:
            yield entry.key


def _question(
    memo: Path, older_than_s: float | None, max_bytes: int | None, operator: str | None
) -> str:
    what = []
    if older_than_s is not None:
        what.append(f"is older than {age(older_than_s)}")
    if max_bytes is not None:
        what.append(f"exceeds {size(max_bytes)}")
    whose = f" of the calls of {operator}" if operator else ""
    return f"Remove from {memo} what{whose} {' or '.join(what)}?"


def _report(memo: Path, num_removed: int, freed_bytes: int, *, as_json: bool) -> None:
    if as_json:
        fields = {"memo": str(memo), "removed": num_removed, "freed_bytes": freed_bytes}
        click.echo(json.dumps(fields))
    else:
        click.echo(f"Removed {count_entries(num_removed)} ({size(freed_bytes)}) from {memo}.")
