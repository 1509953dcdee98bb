"""`helium cache explain-miss`: why a row's calls would be computed, though a memo is there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helium_agents.batch.rows import Rows, place_of_row
from helium_agents.cli.cache_look import SHORT_KEY, caller_name
from helium_agents.cli.cache_memo import cache_command, entries, reading
from helium_agents.cli.options import FILE, echo_warning, engine_options, workflow_argument
from helium_agents.cli.report import count
from helium_agents.cli.units import age, duration
from helium_agents.errors import InputError

if TYPE_CHECKING:
    from helium_agents.batch.workflow import Workflow
    from helium_agents.diagnose.explain_miss import Miss, Stored
    from helium_agents.diagnose.replay import Replayed
    from helium_agents.memo.store import BrowsableStore


@cache_command(
    "helium cache explain-miss flow.py:answer --input rows.jsonl --memo memo",
    "helium cache explain-miss flow.py:answer --input rows.jsonl --memo memo --row 17 \\",
    "    --model Qwen/Qwen3-8B",
    name="explain-miss",
)
@workflow_argument
@click.option("--input", "input_path", type=FILE, required=True, help="Rows: a JSON value a line.")
@click.option(
    "--row", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
    help='Which row, from 0, like the "item" of an error\'s line.',
)  # fmt: skip
@click.option(
    "--ttl",
    "ttl_s",
    type=duration,
    metavar="DURATION",
    help="How long answers live for your program: 30d, 12h.",
)
@engine_options
def explain_miss(
    target: str, memo: Path, input_path: Path, row: int, ttl_s: float | None,
    as_json: bool, **engine_settings: Any,
) -> None:  # fmt: skip
    """Say why a row is not answered from a memo.

    The row runs on what the memo holds; no model is started and nothing is written, but the
    workflow's own code runs. For each call that is missing, the nearest stored call is shown, and
    what differs. What comes after a missing answer is not known.
    """
    from helium_agents.cli.execute import engine_of, stdout_for_report
    from helium_agents.cli.failure import explain_failure
    from helium_agents.cli.loading import load_workflow
    from helium_agents.cli.signals import run_until_stopped
    from helium_agents.diagnose.explain_miss import explain_misses
    from helium_agents.diagnose.replay import replay

    with stdout_for_report():
        workflow = load_workflow(target)
        value = _row_of(row, input_path, workflow)
        with reading(memo, ttl_s) as store:
            engine = engine_of(**engine_settings)
            replayed = run_until_stopped(replay(workflow.fn, value, engine, store))
    misses: list[Miss] = []
    if replayed.misses:
        with reading(memo) as store:
            misses = explain_misses(replayed.misses, _stored(store), ttl_s=ttl_s)
    if as_json:
        click.echo(json.dumps(_as_dict(target, row, replayed, misses)))
    else:
        _report(target, row, input_path, replayed, misses)
        if replayed.failure is not None:
            echo_warning(f"the row failed: {explain_failure(replayed.failure, workflow)}")


def _stored(store: BrowsableStore) -> Iterator[Stored]:
    """What a memo knows of its calls."""
    from helium_agents.diagnose.explain_miss import Stored

    now_s = time.time()
    for entry, provenance in entries(store):
        if provenance is not None:
            yield Stored(entry.key, now_s - entry.created_s, provenance)


def _row_of(row: int, input_path: Path, workflow: Workflow) -> Any:
    """Row N of a file, as the workflow gets it."""
    rows = Rows(input_path, workflow, row + 1)
    if len(rows) <= row:
        raise InputError(f"{input_path} has {len(rows):,} rows, so --row is below that (from 0)")
    return next(islice(rows, row, None))


def _report(
    target: str, row: int, input_path: Path, replayed: Replayed, misses: list[Miss]
) -> None:
    found = f"{count(replayed.num_found, 'call')} answered from the memo"
    missing = f"{len(misses):,} missing" if misses else "none missing"
    click.echo(f"{target} on {place_of_row(input_path, row)}: {found}, {missing}")
    for first, *others in _alike(misses):
        more = f" (and {len(others):,} more)" if others else ""
        click.echo(f"\n{_call(first)}{more}\n  {first.reason}")
        if first.nearest is not None:
            click.echo(f"  nearest stored call: {_nearest(first, first.nearest)}")
        for difference in first.differences:
            click.echo(f"    {difference}")
    if any(miss.asked.kind == "llm" for miss in misses):
        click.echo("\nWhat the row would ask after these answers is not known.")


def _alike(misses: list[Miss]) -> Iterable[list[Miss]]:
    """Misses of the same operator's calls for the same reason, together."""
    groups: dict[object, list[Miss]] = {}
    for miss in misses:
        key = miss.asked.label, miss.asked.caller, miss.reason
        groups.setdefault(key, []).append(miss)
    return groups.values()


def _nearest(miss: Miss, nearest: Stored) -> str:
    row = nearest.provenance.row
    whose = ", for this row" if row is not None and row == miss.asked.row else ""
    return f"{nearest.key.hex()[:SHORT_KEY]}, {age(nearest.age_s)} old{whose}"


def _call(miss: Miss) -> str:
    caller = caller_name(miss.asked)
    name = click.style(miss.asked.label + (f" in {caller}" if caller else ""), bold=True)
    return f"{name}: {miss.asked.first_words()}"


def _as_dict(target: str, row: int, replayed: Replayed, misses: list[Miss]) -> dict[str, Any]:
    failure = replayed.failure
    return {
        "workflow": target,
        "row": row,
        "found": replayed.num_found,
        "failure": None if failure is None else f"{type(failure).__name__}: {failure}",
        "misses": [
            {
                "label": miss.asked.label,
                "caller": miss.asked.caller,
                "asked": miss.asked.first_words(),
                "cause": miss.cause,
                "reason": miss.reason,
                "nearest": None if miss.nearest is None else miss.nearest.key.hex(),
                "differences": [
                    {"field": it.field, "stored": it.stored, "asked": it.asked}
                    for it in miss.differences
                ],
            }
            for miss in misses
        ],
    }
