"""`helium run --dry-run`: checks everything a run needs, and says what it would ask for."""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import click

from helium_agents.batch import Batch
from helium_agents.cli.cache_memo import is_memo, reading
from helium_agents.cli.execute import EXIT_FAILED, stdout_for_report
from helium_agents.cli.options import echo_error
from helium_agents.cli.rehearse import Rehearsal, rehearse
from helium_agents.cli.report import count, table
from helium_agents.engines.embedded import NAME
from helium_agents.engines.model_source import find_model
from helium_agents.engines.openai import OpenAIServer
from helium_agents.engines.vllm import VLLM

_NUM_TRACED = 3


def dry_run(
    batch: Batch,
    engine: VLLM | OpenAIServer,
    asked: dict[str, Any],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check what there is, the memo and the model, and trace the first rows.

    Exits with 1 where every row that was traced failed.

    Args:
        batch: What a run would run.
        engine: What would compute.
        asked: What was asked for, under the names that reports for programs have.
        as_json: Whether the report is one.
        quiet: Print errors only.

    Raises:
        HeliumError: What a run would fail on.
    """
    with stdout_for_report():
        if isinstance(engine, OpenAIServer):
            asyncio.run(_reach(engine))
        elif asked["model"] != "embedded":
            find_model(asked["model"])
        is_finished = batch.resume and batch.is_finished
        num_remembered = None
        memo = asked["memo"]
        must_exist = batch.options["memo_mode"] == "replay-only"
        if memo is not None and (must_exist or is_memo(Path(memo))):
            with reading(Path(memo)) as store:
                num_remembered = store.stats().num_entries
        rehearsal = rehearse(batch.workflow, list(islice(batch.rows, _NUM_TRACED)))
    calls_by_row = rehearsal.calls_by_row
    has_failed = len(rehearsal.failures) == len(calls_by_row) > 0
    if as_json:
        report = {
            "status": "dry run",
            **asked,
            "output": str(batch.output.path),
            "memo_entries": num_remembered,
            "traced_rows": len(calls_by_row),
            "calls_by_row": calls_by_row,
            **rehearsal.as_dict(),
        }
        click.echo(json.dumps(report))
    elif not quiet:
        replaces = ", replacing what is there" if batch.output.path.exists() else ""
        output = f"{batch.output.path}{', finished already' if is_finished else replaces}"
        click.echo(_as_text(batch, asked | {"output": output}, rehearsal, num_remembered))
    if has_failed or not (as_json or quiet):
        rehearsal.echo_failures()
    if has_failed:
        echo_error("every row that was traced failed: see why before you run it on a model")
        sys.exit(EXIT_FAILED)


async def _reach(engine: OpenAIServer) -> None:
    """See that the server is there, takes the key and has the model."""
    async with engine:
        pass


def _as_text(
    batch: Batch, asked: dict[str, Any], rehearsal: Rehearsal, num_remembered: int | None
) -> str:
    workflow, num_rows = batch.workflow, len(batch.rows)
    fits = "" if workflow.row_type is None else f", each fits `{workflow.parameter}`"
    model, memo = asked["model"], asked["memo"]
    if memo is None:
        memo = "none: a rerun computes everything again (see --memo)"
    elif num_remembered is None:
        memo += " will be made"
    else:
        memo += f" has {num_remembered:,} entries"
    lines = [
        ("workflow", asked["workflow"]),
        ("input", f"{batch.rows.path}: {count(num_rows, 'row')}{fits}"),
        ("output", asked["output"]),
        ("model", f"the embedded one, {NAME}" if model == "embedded" else model),
        *([("server", f"{asked['server']}, which has the model")] if asked["server"] else []),
        ("memo", memo),
        *_calls(rehearsal, num_rows),
    ]
    return f"Dry run: nothing was computed or written.\n{table(lines)}"


def _calls(rehearsal: Rehearsal, num_rows: int) -> list[tuple[str, str]]:
    num_traced = len(rehearsal.calls_by_row)
    if not num_traced:
        return []
    each = ", ".join(f"{number:,}" for number in rehearsal.calls_by_row)
    rows = "the first row" if num_traced == 1 else f"the first {num_traced} rows"
    lines = [
        ("calls", f"{each} by {rows}, traced with placeholder answers"),
        ("", f"{rehearsal.num_calls:,} in all, {rehearsal.num_computed:,} of them distinct"),
    ]
    if num_rows > num_traced:
        about = round(rehearsal.num_calls / num_traced * num_rows)
        lines.append(("", f"about {about:,} for all rows; real answers may lead elsewhere"))
    return lines
