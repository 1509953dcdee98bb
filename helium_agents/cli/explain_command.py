"""`helium explain`: the plan that a workflow makes, before and after the rules."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helium_agents.cli.options import (
    FILE,
    POSITIVE,
    debug_option,
    examples,
    json_option,
    workflow_argument,
)
from helium_agents.errors import InputError

if TYPE_CHECKING:
    from helium_agents.cli.loading import Workflow


@click.command(
    epilog=examples(
        "helium explain flow.py:answer",
        "helium explain flow.py:answer --input rows.jsonl --limit 2",
    )
)
@workflow_argument
@click.option("--input", "input_path", type=FILE, help="Rows; without it one is made up.")
@click.option(
    "--limit", type=POSITIVE, metavar="N", default=1, show_default=True, help="How many rows."
)
@json_option
@debug_option
def explain(target: str, input_path: Path | None, limit: int, as_json: bool) -> None:
    """Show the plan of a workflow, and what the rules make of it.

    The workflow runs on placeholder answers: its own code runs, but no model. Real answers may
    lead to other branches. Calls of equal keys are the same call.
    """
    from helium_agents.cli.execute import stdout_for_report
    from helium_agents.cli.loading import load_workflow
    from helium_agents.cli.report import count, echo_failures
    from helium_agents.cli.signals import run_until_stopped
    from helium_agents.cli.trace import trace

    with stdout_for_report():
        workflow = load_workflow(target)
        rows = _rows(workflow, input_path, limit)
        traced = run_until_stopped(trace(workflow, rows))
    if as_json:
        fields = {
            "workflow": target,
            "rows": len(rows),
            "calls": traced.num_calls,
            "distinct_calls": traced.num_computed,
            "logical": traced.logical.splitlines(),
            "optimized": traced.optimized.splitlines(),
            "failed_rows": {str(index): text for index, text in traced.failures.items()},
        }
        click.echo(json.dumps(fields))
        return
    source = "made up" if input_path is None else f"from {input_path}"
    click.echo(f"{target} on {count(len(rows), 'row')} {source}")
    click.echo("Answers are placeholders, so branches may differ from a real run.")
    click.echo(f"\n{_heading('Logical plan')}: {traced.logical}")
    click.echo(f"\n{_heading('After the rules')}: {traced.optimized}")
    echo_failures(traced)
    if traced.failures and input_path is None:
        click.echo("The row is made up too: give real ones with --input.", err=True)


def _heading(text: str) -> str:
    return click.style(text, bold=True)


def _rows(workflow: Workflow, path: Path | None, limit: int) -> list[Any]:
    from helium_agents.cli.rows import Rows

    return (
        [_example(workflow)] if path is None else list(islice(Rows(path, workflow, limit), limit))
    )


def _example(workflow: Workflow) -> Any:
    """A row that fits the workflow's parameter.

    Raises:
        InputError: None can be made up.
    """
    from pydantic import ValidationError
    from pydantic.errors import PydanticUserError

    from helium_agents.engines.schema_example import example_json

    if not workflow.is_annotated:
        raise InputError(
            f"no row can be made up for {workflow.name}, whose parameter `{workflow.parameter}` "
            "has no annotation: give rows with --input"
        )
    try:
        schema = json.dumps(workflow.row_type.json_schema())
        return workflow.row_type.validate_json(example_json(schema, workflow.target))
    except (PydanticUserError, ValidationError, KeyError, ValueError) as error:
        raise InputError(
            f"no row can be made up for `{workflow.parameter}` of {workflow.name}: give rows "
            "with --input"
        ) from error
