"""`helium cache`: what a memo holds, why it does not hold more, and making it smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from helium_agents.cli.cache_carry import export_command, import_command, verify
from helium_agents.cli.cache_explain import explain_miss
from helium_agents.cli.cache_look import ls, show
from helium_agents.cli.cache_remove import clear, prune
from helium_agents.cli.cache_store import count_entries, memo_option, reading
from helium_agents.cli.options import debug_option, examples, json_option
from helium_agents.cli.units import date, size

if TYPE_CHECKING:
    from helium_agents.memo.store import StoreStats


@click.group(
    epilog=examples(
        "helium cache stats --memo memo",
        "helium cache ls --memo memo --operator expert",
        "helium cache explain-miss flow.py:answer --input rows.jsonl --memo memo",
        "helium cache clear --memo memo",
    )
)
def cache() -> None:
    """Look into a memo, find out what it misses, or make it smaller."""


@cache.command(epilog=examples("helium cache stats --memo memo"))
@memo_option
@json_option
@debug_option
def stats(memo: Path, as_json: bool) -> None:
    """Say how much a memo holds."""
    with reading(memo) as store:
        held = store.stats()
    click.echo(json.dumps(_as_dict(memo, held)) if as_json else _as_text(memo, held))


for command in (ls, show, explain_miss, prune, clear, verify, export_command, import_command):
    cache.add_command(command)


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
    bound = "" if held.max_bytes is None else f" of at most {size(held.max_bytes)}"
    lines = [f"{memo}: {count_entries(held.num_entries)}, {size(held.num_bytes)}{bound}"]
    if held.oldest_s is not None and held.newest_s is not None:
        lines.append(f"oldest of {date(held.oldest_s)}, newest of {date(held.newest_s)}")
    width = max(map(len, held.num_by_label), default=0)
    by_size = sorted(held.num_by_label, key=lambda label: (-held.bytes_by_label[label], label))
    for label in by_size:
        num_bytes = size(held.bytes_by_label[label])
        lines.append(f"  {label:<{width}}  {held.num_by_label[label]:>9,}  {num_bytes:>10}")
    return "\n".join(lines)
