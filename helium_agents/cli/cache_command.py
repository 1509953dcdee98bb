"""`helium cache`: what a memo holds, why it does not hold more, and making it smaller."""

from __future__ import annotations

import click

from helium_agents.cli.cache_change import clear, export_command, import_command, prune, verify
from helium_agents.cli.cache_explain import explain_miss
from helium_agents.cli.cache_look import ls, show, stats
from helium_agents.cli.cache_profiles import profiles
from helium_agents.cli.options import examples


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


for command in (
    stats, ls, show, profiles, explain_miss, prune, clear, verify, export_command, import_command,
):  # fmt: skip
    cache.add_command(command)
