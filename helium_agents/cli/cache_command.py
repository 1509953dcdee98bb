"""`helium cache`: what a memo holds, and emptying it."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from helium_agents.cli.options import DIRECTORY, debug_option, examples, json_option
from helium_agents.errors import InputError

if TYPE_CHECKING:
    from helium_agents.memo.store import StoreStats

_memo_option = click.option("--memo", type=DIRECTORY, required=True, help="The memo's directory.")


@click.group(epilog=examples("helium cache stats --memo memo", "helium cache clear --memo memo"))
def cache() -> None:
    """Look into a memo, or empty it."""


@cache.command(epilog=examples("helium cache stats --memo memo"))
@_memo_option
@json_option
@debug_option
def stats(memo: Path, as_json: bool) -> None:
    """Say what a memo holds."""
    held = _stats(memo)
    click.echo(json.dumps(_as_dict(memo, held)) if as_json else _as_text(memo, held))


@cache.command(
    epilog=examples("helium cache clear --memo memo", "helium cache clear --memo memo --yes")
)
@_memo_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@debug_option
def clear(memo: Path, yes: bool) -> None:
    """Remove all that a memo holds; the directory stays."""
    from helium_agents.memo.open import open_store

    held = _stats(memo)  # before it is opened for writing, which would make one anywhere
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("there is nobody to ask: add --yes to empty the memo")
        question = f"Remove {_entries(held)} ({_size(held.num_bytes)}) from {memo}?"
        if not click.confirm(question):
            click.echo("Nothing was removed.")
            return
    store = open_store(memo)
    try:
        num_removed = store.clear()
    finally:
        store.close()
    click.echo(f"Removed {num_removed:,} entries from {memo}.")


def _stats(memo: Path) -> StoreStats:
    from helium_agents.memo.lmdb_tables import DATA_FILE
    from helium_agents.memo.open import open_store

    if not (memo / DATA_FILE).is_file():
        raise InputError(
            f"there is no memo in {memo}: check the path (a run with --memo makes one)"
        )
    store = open_store(memo, read_only=True)
    try:
        return store.stats()
    finally:
        store.close()


def _as_dict(memo: Path, held: StoreStats) -> dict[str, object]:
    return {
        "memo": str(memo),
        "entries": held.num_entries,
        "bytes": held.num_bytes,
        "max_bytes": held.max_bytes,
        "oldest_s": held.oldest_s,
        "newest_s": held.newest_s,
        "by_label": {
            label: {"entries": number, "bytes": held.bytes_by_label[label]}
            for label, number in sorted(held.num_by_label.items())
        },
    }


def _as_text(memo: Path, held: StoreStats) -> str:
    bound = "" if held.max_bytes is None else f" of at most {_size(held.max_bytes)}"
    lines = [f"{memo}: {_entries(held)}, {_size(held.num_bytes)}{bound}"]
    if held.oldest_s is not None and held.newest_s is not None:
        lines.append(f"oldest of {_date(held.oldest_s)}, newest of {_date(held.newest_s)}")
    width = max(map(len, held.num_by_label), default=0)
    by_size = sorted(held.num_by_label, key=lambda label: (-held.bytes_by_label[label], label))
    for label in by_size:
        size = _size(held.bytes_by_label[label])
        lines.append(f"  {label:<{width}}  {held.num_by_label[label]:>9,}  {size:>10}")
    return "\n".join(lines)


def _entries(held: StoreStats) -> str:
    return f"{held.num_entries:,} {'entry' if held.num_entries == 1 else 'entries'}"


def _date(time_s: float) -> str:
    return datetime.fromtimestamp(time_s).strftime("%Y-%m-%d %H:%M")


def _size(num_bytes: float) -> str:
    units = iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while num_bytes >= 1024 and unit != "TiB":
        num_bytes, unit = num_bytes / 1024, next(units)
    return f"{num_bytes:,.0f} {unit}" if unit == "B" else f"{num_bytes:,.1f} {unit}"
