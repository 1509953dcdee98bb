"""`helium run --dry-run`: checks everything a run needs, and says what it would ask for."""

from __future__ import annotations

import json
import sys
from itertools import islice
from typing import Any

import click

from helium_agents.cli.cache_memo import reading
from helium_agents.cli.execute import EXIT_FAILED, stdout_for_report
from helium_agents.cli.job import Job
from helium_agents.cli.options import echo_error
from helium_agents.cli.report import count, echo_failures, table
from helium_agents.cli.trace import Traced, trace
from helium_agents.engines.embedded import NAME
from helium_agents.engines.model_source import find_model

_NUM_TRACED = 3


def dry_run(job: Job, *, as_json: bool, quiet: bool) -> None:
    """Check the workflow, rows, output, memo and model, and trace the first rows.

    Exits with 1 where every row that was traced failed.

    Raises:
        HeliumError: What a run would fail on.
    """
    with stdout_for_report():
        batch = job.batch
        engine = job.engine()
        if job.model is not None:
            find_model(job.model)
        if job.resume:
            job.resuming(job.about(engine))
        num_remembered = _num_remembered(job)
        rows = list(islice(batch.rows, _NUM_TRACED))
        traced = trace(batch.workflow, rows)
    has_failed = bool(rows) and len(traced.failures) == len(rows)
    if as_json:
        click.echo(json.dumps(_as_dict(job, traced, num_remembered)))
    elif not quiet:
        click.echo(_as_text(job, traced, num_remembered))
    if has_failed or not (as_json or quiet):
        echo_failures(traced)
    if has_failed:
        echo_error("every row that was traced failed: see why before you run it on a model")
        sys.exit(EXIT_FAILED)


def _num_remembered(job: Job) -> int | None:
    """How many entries the memo has; `None` where there is no memo yet."""
    if job.memo is None or not job.has_memo:
        return None
    with reading(job.memo) as store:
        return store.stats().num_entries


def _as_dict(job: Job, traced: Traced, num_remembered: int | None) -> dict[str, Any]:
    return {
        "status": "dry run",
        "workflow": job.target,
        "input": str(job.input_path),
        "output": str(job.output_path),
        "rows": len(job.batch.rows),
        "model": job.model or "embedded",
        "memo": None if job.memo is None else str(job.memo),
        "memo_entries": num_remembered,
        "traced_rows": len(traced.calls_by_row),
        "calls_by_row": list(traced.calls_by_row),
        "calls": traced.num_calls,
        "distinct_calls": traced.num_computed,
        "failed_rows": {str(index): message for index, message in traced.failures.items()},
    }


def _as_text(job: Job, traced: Traced, num_remembered: int | None) -> str:
    batch = job.batch
    num_rows = len(batch.rows)
    fits = f", each fits `{batch.workflow.parameter}`" if batch.workflow.is_annotated else ""
    replaces = ", replacing what is there" if job.output_path.exists() else ""
    lines = [
        ("workflow", job.target),
        ("input", f"{job.input_path}: {count(num_rows, 'row')}{fits}"),
        ("output", f"{job.output_path}{replaces}"),
        ("model", job.model or f"the embedded one, {NAME}"),
        ("memo", _memo(job, num_remembered)),
        *_calls(traced, num_rows),
    ]
    return f"Dry run: nothing was computed or written.\n{table(lines)}"


def _memo(job: Job, num_remembered: int | None) -> str:
    if job.memo is None:
        return "none: a rerun computes everything again (see --memo)"
    if num_remembered is None:
        return f"{job.memo} will be made"
    return f"{job.memo} has {num_remembered:,} entries"


def _calls(traced: Traced, num_rows: int) -> list[tuple[str, str]]:
    calls_by_row = traced.calls_by_row
    if not calls_by_row:
        return []
    each = ", ".join(f"{number:,}" for number in calls_by_row)
    rows = "the first row" if len(calls_by_row) == 1 else f"the first {len(calls_by_row)} rows"
    lines = [
        ("calls", f"{each} by {rows}, traced with placeholder answers"),
        ("", f"{traced.num_calls:,} in all, {traced.num_computed:,} of them distinct"),
    ]
    if num_rows > len(calls_by_row):
        about = round(traced.num_calls / len(calls_by_row) * num_rows)
        lines.append(("", f"about {about:,} for all rows; real answers may lead elsewhere"))
    return lines
